"""Question, answers and category of a row, whichever of the known shapes it has."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isara_pl.errors import InputError, did_you_mean, short
from isara_pl.growth.conversations import (
    ConversationPair,
    NoPairError,
    Turn,
    first_pair,
    is_dialogue,
    last_pair,
    only_pair,
)
from isara_pl.growth.safety import is_safe_of
from isara_pl.growth.tables import Row, normal

Columns = dict[str, str] | str | None  # in Python any mapping will do

PAIR_FIELDS = (
    "question/answer, question/best_answer, prompt/completion, instruction[/input]/output, messages or conversations"
)
# far above any model's window; a tokenizer would take minutes and gigabytes, only for the text to be cut or refused
LONGEST_TEXT = 1_000_000
_CONVERSATIONS = ("messages", "conversations", "conversation")
# the field of a question, and those of its answer in the order in which they are looked for: never another's answer
_ANSWERS = {
    "question": ("best_answer", "answer", "response"),
    "prompt": ("completion", "response"),
    "instruction": ("output", "response"),
    "forbidden_prompt": ("response",),  # StrongREJECT's
}
_BEHIND_INSTRUCTION = ("input", "context")  # Alpaca's and Dolly's: part of what is asked
_PREFERENCES = (("harmless", "harmful"), ("chosen", "rejected"))
# where rows hold what an answer may rest on; it is said if it is in neither question nor answer
_BESIDE = ("system", "system_prompt", "context", "history", "instruction", "input", "question", "prompt")
_OF_ITEMS = ("category", "correct_answers", "incorrect_answers", "best_incorrect_answer", "is_safe", "label", "type")
_TEXT_PARTS = ("text", "input_text", "output_text")
_FIELDS = frozenset(
    name
    for names in (_CONVERSATIONS, _ANSWERS, *_ANSWERS.values(), _BEHIND_INSTRUCTION, *_PREFERENCES, _BESIDE, _OF_ITEMS)
    for name in names
)


class Shapes:
    """What is read of rows; whatever of one cannot be used raises InputError.

    Args:
        columns: The names that a file has for fields, as a mapping or as question=Frage,answer=Antwort.
    """

    def __init__(self, columns: Columns = None) -> None:
        self._fields = {own: field for field, own in _mapping(columns).items()}
        self.names = _FIELDS | self._fields.keys()

    def known(self, row: Row) -> Row:
        """Give what is in a row, under the names of fields; no value is null then, and a blank row is empty."""
        known = {name: value for name, value in row.items() if not _is_null(value)}
        own = {field: known.pop(name) for name, field in self._fields.items() if name in known}
        return {**known, **own}


def pair_of(row: Row) -> tuple[str, str]:
    """Give question and answer; an answer that is called unsafe is none, and a dialogue has the chosen one."""
    if has_dialogue(row):
        return only_pair(row["chosen"])
    if is_safe_of(row) is False:
        raise NoPairError("`is_safe` is false")
    name, pair = _conversation(row)
    if pair.answer is None:
        raise InputError(f"`{name}` has no turn of role 'assistant' after the user's; remove the row")
    return _asked(pair), _text(pair.answer.content, pair.answer.name)


def question_of(row: Row) -> str:
    """Give the question; there may be no answer."""
    if has_dialogue(row):
        return only_pair(row["chosen"])[0]
    return _asked(_conversation(row)[1])


def preference_of(row: Row) -> tuple[str, str, str]:
    """Give the question, the more harmless and the more harmful answer."""
    found = next((names for names in _PREFERENCES if names[0] in row or names[1] in row), None)
    if found is None:
        raise InputError(
            f"no pair of answers among {short(sorted(row))}; expected harmless and harmful, or chosen and rejected"
        )
    if has_dialogue(row):
        return _preference_of_dialogues(row)
    question = question_of(row) if _question_field(row) else None
    better, worse = (_preferred(row, name, question) for name in found)
    if better[0] != worse[0]:
        raise InputError(f"the fields `{found[0]}` and `{found[1]}` answer different questions; remove the row")
    if better[1] == worse[1]:
        raise InputError(f"the fields `{found[0]}` and `{found[1]}` hold the same text; remove the row")
    return (*better, worse[1])


def is_preference(row: Row) -> bool:
    """Whether a row names a better and a worse answer."""
    return any(name in row for names in _PREFERENCES for name in names)


def has_dialogue(row: Row) -> bool:
    """Whether a row is one of HH-RLHF: `chosen` holds the question as well, in one text."""
    return _question_field(row) is None and is_dialogue(row.get("chosen"))


def category_of(row: Row) -> str | None:
    """Give the category as text; of names that are true or false (BeaverTails), those that are true."""
    value = row.get("category")
    if value is None:
        return None
    if isinstance(value, dict) and all(isinstance(flag, bool) for flag in value.values()):
        value = [name for name, flag in value.items() if flag]
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float | None) for one in values):
        raise InputError("the field `category` must be text, a number, a list of them, or names with true and false")
    return _usable(", ".join(str(one) for one in values if not _is_empty(one)), "category") or None


def correct_answers_of(row: Row) -> tuple[str, ...]:
    """Give all correct answers."""
    return _answers(row, "correct_answers")


def incorrect_answers_of(row: Row) -> tuple[str, ...]:
    """Give the incorrect answers, the best one first where it has a field of its own."""
    best = best_incorrect_answer_of(row)
    first = [] if best is None else [best]
    return tuple(dict.fromkeys([*first, *_answers(row, "incorrect_answers")]))


def best_incorrect_answer_of(row: Row) -> str | None:
    """Give the best incorrect answer; None where no field says which one that is."""
    best = row.get("best_incorrect_answer")
    return None if _is_empty(best) else _text(best, "best_incorrect_answer")


def left_out_of(row: Row, texts: Sequence[str]) -> list[str]:
    """Give what of a row is in none of the texts that were read of it, though an answer may rest on it."""
    source = _question_field(row)
    turns = _conversation(row)[1].left_out if source in (*_CONVERSATIONS, "prompt") else []
    fields = [
        f"`{name}`"
        for name in _BESIDE
        if name in row
        and name != source
        and not _is_empty(value := row[name])
        and not (isinstance(value, str) and any(value.strip() in text for text in texts))
    ]
    return [*turns, *fields]


def _mapping(columns: Columns) -> dict[str, str]:
    """Give the `normal` name that a file has for each field that is renamed."""
    if isinstance(columns, str):
        parts = [part.partition("=") for part in columns.split(",")]
        columns = {field.strip(): own for field, _, own in parts}
    columns = columns or {}
    for field, own in columns.items():
        if field not in _FIELDS:
            raise InputError(
                f"columns: {field!r} is no field that is read.{did_you_mean(field, sorted(_FIELDS))} Expected such as "
                f"question=Frage,answer=Antwort, with any of {', '.join(sorted(_FIELDS))}"
            )
        if not isinstance(own, str) or not own.strip():
            raise InputError(f"columns: no name is given for {field}; expected such as question=Frage,answer=Antwort")
    return {field: normal(own) for field, own in columns.items()}


def _conversation(row: Row) -> tuple[str, ConversationPair]:
    """Give the field that holds the question, and question and answer as turns."""
    name = _question_field(row)
    if name is None:
        raise InputError(
            f"no question field among {short(sorted(row))}; expected {PAIR_FIELDS}, or tell your names by `columns`, "
            "as in question=Frage,answer=Antwort"
        )
    if name in _CONVERSATIONS:
        return name, first_pair(row[name], name)
    answer_name = _first(row, _ANSWERS[name]) or ("answer" if name == "question" else _ANSWERS[name][0])
    asked, answer = row[name], row.get(answer_name)
    if name == "prompt" and (isinstance(asked, list) or isinstance(answer, list)):  # TRL's conversational form
        return name, last_pair(_as_turns(asked, "user"), name, _as_turns(answer, "assistant"))
    extras = _BEHIND_INSTRUCTION if name == "instruction" else ()
    turns = [Turn("user", one, row[one]) for one in (name, *extras) if one == name or not _is_empty(row.get(one))]
    return name, ConversationPair(turns, Turn("assistant", answer_name, answer), [])


def _as_turns(value: Any, role: str) -> Any:
    """Give turns as they are, and a text as the one turn of a role; no turns for null."""
    return [{"role": role, "content": value}] if isinstance(value, str) else value or []


def _question_field(row: Row) -> str | None:
    return _first(row, (*_CONVERSATIONS, *_ANSWERS))


def _first(row: Row, names: Sequence[str]) -> str | None:
    """Give the first field that holds anything, else the first that is there."""
    there = None
    for name in names:
        if name in row:
            if not _is_empty(row[name]):
                return name
            there = there or name
    return there


def _preferred(row: Row, name: str, question: str | None) -> tuple[str, str]:
    """Give question and answer of one of two answers, which may be a conversation that ends in it."""
    value = row.get(name)
    if not isinstance(value, list):
        if question is None:
            question_of(row)  # which says what is missing
        return str(question), _text(value, name)
    pair = last_pair([*([] if question is None else _as_turns(question, "user")), *value], name)
    if pair.answer is None:
        raise InputError(f"`{name}` must end in a turn of role 'assistant'; remove the row")
    return _asked(pair) if question is None else question, _text(pair.answer.content, pair.answer.name)


def _preference_of_dialogues(row: Row) -> tuple[str, str, str]:
    rejected = row.get("rejected")
    if not isinstance(rejected, str) or not is_dialogue(rejected):
        raise InputError("the field `rejected` must be a dialogue as `chosen` is, with `Human:` and `Assistant:`")
    (question, better), (other, worse) = only_pair(row["chosen"]), only_pair(rejected)
    if question != other or better == worse:
        raise NoPairError("two dialogues that differ in their questions, or not in their answers")
    return question, better, worse


def _asked(pair: ConversationPair) -> str:
    return "\n".join(_text(turn.content, turn.name) for turn in pair.asked)


def _text(value: Any, name: str) -> str:
    """Give a text, or those of content parts."""
    if value is None:
        raise InputError(f"the field `{name}` is missing; fill it, or remove the row")
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        value = "\n".join(_part(part, name) for part in value)
    if not isinstance(value, str):
        raise InputError(f"the field `{name}` must be text, found {type(value).__name__}")
    if not value.strip():
        raise InputError(f"the field `{name}` is empty; fill it, or remove the row")
    return _usable(value, name)


def _part(part: Mapping[str, Any], name: str) -> str:
    text = part.get("text")
    if part.get("type") not in _TEXT_PARTS or not isinstance(text, str):
        kind = short([str(part.get("type"))])
        raise InputError(f"the field `{name}` holds a part of type {kind}, which is no text; remove the row")
    return text


def _usable(value: str, name: str) -> str:
    """Give a text without the space around it, if a tokenizer and a file in UTF-8 can hold it."""
    if len(value) > LONGEST_TEXT:
        raise InputError(
            f"the field `{name}` has {len(value):,} characters; allowed: at most {LONGEST_TEXT:,}. "
            "Shorten it, or split it into several rows"
        )
    if "\0" in value:
        raise InputError(f"the field `{name}` holds the character NUL (U+0000); remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"the field `{name}` holds half a character (a lone surrogate); remove it") from None
    return value.strip()


def _answers(row: Row, name: str) -> tuple[str, ...]:
    values = row.get(name)
    if not values:
        return ()
    if isinstance(values, str):
        values = [part for part in values.split(";") if part.strip()]
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise InputError(f"the field `{name}` must be a list of texts, none empty")
    return tuple(_usable(value, name) for value in values)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))  # as pandas fills an empty cell


def _is_empty(value: Any) -> bool:
    return not value.strip() if isinstance(value, str) else _is_null(value) or value in ([], {})
