"""The question and the answer in a conversation: turns of OpenAI's form (role, content) or ShareGPT's (from, value).

HH-RLHF's form is a text, in which `Human:` and `Assistant:` begin turns.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isara_pl.errors import InputError, short

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
_SYSTEM = ("system", "developer")
_IN_TEXT = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation says; `content` is the value of the field `name`."""

    role: str
    name: str
    content: Any
    is_learned: bool = True  # OpenAI's fine-tuning leaves out an answer of weight 0


@dataclass(frozen=True)
class ConversationPair:
    """An answer in a conversation, and what it answers."""

    asked: Sequence[Turn]  # the user's turns right before the answer
    answer: Turn | None  # the assistant's turn; None where there is none
    left_out: Sequence[str]  # kinds of turns that are in neither


class NoPairError(Exception):
    """A row that gives no pair by what it says of itself: it is left out and counted. The text is the reason."""


def first_pair(messages: Any, name: str) -> ConversationPair:
    """Find the first answer to a user, and what it answers, in the value of a field `name`.

    Raises InputError if there are no turns in it, no user says anything, or an answer follows another role.
    """
    system, turns = _turns(messages, name)
    roles = [turn.role for turn in turns]
    end = 0
    while True:
        if "user" not in roles[end:]:
            learned = " that is answered with a weight other than 0" if end else ""
            raise InputError(f"`{name}` has no turn of role 'user'{learned}; remove the row")
        start = roles.index("user", end)
        end = next((place for place in range(start, len(roles)) if roles[place] != "user"), len(roles))
        if end == len(roles) or turns[end].is_learned:
            return _pair(system, turns, start, end, name)


def last_pair(messages: Any, name: str, answers: Any = None) -> ConversationPair:
    """Find the last answer in the value of a field `name`, or the first of `answers` behind it, and what it answers.

    Raises InputError if there are no turns in them, or no user's turn stands right before the answer.
    """
    system, turns = _turns(messages, name)
    end = len(turns) - 1
    if answers is not None:
        end, turns = len(turns), [*turns, *_turns(answers, name)[1]]
    start = end
    while start > 0 and turns[start - 1].role == "user":
        start -= 1
    if start >= end:
        raise InputError(f"`{name}` has no turn of role 'user' right before the answer; remove the row")
    if end < len(turns) and turns[end].role == "user":
        raise InputError(f"`{name}` has a turn of role 'user' in the answer's place; remove the row")
    return _pair(system, turns, start, end, name)


def is_dialogue(text: object) -> bool:
    """Whether a value is a dialogue of HH-RLHF."""
    return isinstance(text, str) and _IN_TEXT.match(text) is not None and "\n\nAssistant:" in text


def only_pair(text: str) -> tuple[str, str]:
    """Give question and answer of a dialogue of HH-RLHF that has no others.

    Raises NoPairError if there are turns before the question, on which the answer rests, or if one of the two is empty.
    """
    roles, texts = (_IN_TEXT.split(text)[first::2] for first in (1, 2))
    asked = [content.strip() for role, content in zip(roles, texts, strict=True) if role == "Human"]
    if roles.count("Assistant") > 1:
        raise NoPairError("a dialogue of several turns, whose last answer rests on those before")
    question, answer = "\n".join(filter(None, asked)), texts[-1].strip()
    if roles[-1] != "Assistant" or not question or not answer:
        raise NoPairError("a dialogue without a question or without an answer")
    return question, answer


def _pair(system: Sequence[Turn], turns: Sequence[Turn], start: int, end: int, name: str) -> ConversationPair:
    """Give what stands from `start` to `end` and what answers it, unless another role has spoken by then."""
    others = [turn.role for turn in (*turns[:start], *turns[end : end + 1]) if turn.role not in ("user", "assistant")]
    if others:
        raise InputError(
            f"`{name}` has a turn of role {short(others)} before the answer that is read: what is answered is not "
            f"known; allowed there: {', '.join(_SYSTEM)}, user, assistant. Remove the row"
        )
    left_out = {
        "system text": any(turn.content for turn in system),
        "turns before the question": start > 0,
        "turns after the answer": end + 1 < len(turns),
    }
    answer = turns[end] if end < len(turns) else None
    return ConversationPair(turns[start:end], answer, [kind for kind, is_there in left_out.items() if is_there])


def _turns(messages: Any, name: str) -> tuple[list[Turn], list[Turn]]:
    """Give the system's turns, and all others."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InputError(f"`{name}` must be a list of objects with `role` and `content`, or `from` and `value`")
    turns = [_turn(message) for message in messages]
    return [turn for turn in turns if turn.role in _SYSTEM], [turn for turn in turns if turn.role not in _SYSTEM]


def _turn(message: dict[str, Any]) -> Turn:
    who, what = ("from", "value") if "role" not in message and "from" in message else ("role", "content")
    role = str(message.get(who)).strip().lower()
    return Turn(_ROLES.get(role, role), what, message.get(what), message.get("weight") != 0)
