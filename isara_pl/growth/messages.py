"""The question and the answer of a conversation, and which of its turns are in neither."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isara_pl.errors import InputError
from isara_pl.growth.rows import short

Message = Mapping[str, Any]
SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True)
class FirstPair:
    """The first answer to a user in a conversation.

    Attributes:
        asked: The user's turns right before the answer.
        answer: The assistant's turn; None where there is none.
        left_out: Kinds of turns that are in neither.
    """

    asked: Sequence[Message]
    answer: Message | None
    left_out: Sequence[str]


def first_pair(messages: Any) -> FirstPair:
    """Find the first answer to a user, and what it answers.

    `messages` are objects with `role` and `content`, in order. Raises InputError if they are no such objects, no user
    says anything, or an answer follows another role.
    """
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InputError("`messages` must be a list of objects with `role` and `content`")
    turns = [message for message in messages if message.get("role") not in SYSTEM_ROLES]
    roles = [turn.get("role") for turn in turns]
    if "user" not in roles:
        raise InputError("`messages` has no turn of role 'user'")
    start = end = roles.index("user")
    while end < len(roles) and roles[end] == "user":
        end += 1
    others = [role for role in (*roles[:start], *roles[end : end + 1]) if role != "assistant"]
    if others:
        role = short([str(others[0])])
        raise InputError(
            f"`messages` has a turn of role {role} before the first answer to a user: what is answered is not known; "
            f"allowed there: {', '.join(SYSTEM_ROLES)}, user, assistant. Remove the row"
        )
    left_out = {
        "system text": any(message.get("role") in SYSTEM_ROLES and message.get("content") for message in messages),
        "turns before the first question": start > 0,
        "turns after the first answer": end + 1 < len(turns),
    }
    return FirstPair(turns[start:end], turns[end] if end < len(turns) else None, [k for k, v in left_out.items() if v])
