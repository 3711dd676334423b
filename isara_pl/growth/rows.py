"""The rows of .jsonl, .json and .csv files, each with the line on which it begins, and the conversations in them."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from isara_pl.errors import InputError

_Row = dict[str, Any]
_Message = Mapping[str, Any]
_SYSTEM_ROLES = ("system", "developer")
_SPACE = re.compile(r"[ \t\r\n]*")  # what JSON allows between values


def read_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    """Yield the line and the fields of every row.

    A .jsonl file, a .json file with a list of objects, or a .csv file with a header. Raises InputError if the file or a
    row of it cannot be read. The message begins with `FILE:` or `FILE:LINE:`.
    """
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows}
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file")
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path}: not a regular file, but a folder, a pipe or a device; give a file")
        if path.suffix.lower() not in readers:
            raise InputError(f"{path}: unknown kind of file {path.suffix!r}; allowed: {', '.join(readers)}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    yield from readers[path.suffix.lower()](path, text)


def short(names: Sequence[str]) -> str:
    """Quote the names of fields for a message, also where a file has thousands or very long ones."""
    quoted = [repr(name if len(name) <= 40 else f"{name[:40]}…") for name in names[:10]]
    return ", ".join([*quoted, *([f"and {len(names) - 10} more"] if len(names) > 10 else [])])


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, _Row]]:
    # at "\n" only: JSON may hold other line separators, such as U+2028, inside a string
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if line := line.strip():
            row, end = _object(path, number, line, 0)
            if end < len(line):
                raise InputError(f"{path}:{number}: not JSON: something follows the object; give one object a line")
            yield number, row


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, _Row]]:
    """Yield the objects of one JSON list, with the lines on which they begin."""
    place = _after_space(text, 0)
    if text[place : place + 1] != "[":
        raise InputError(f"{path}:1: expected a JSON list of objects; for one object a line use the ending .jsonl")
    number, counted, between = 1, 0, ","
    place = _after_space(text, place + 1)
    if text[place : place + 1] == "]":
        between = "]"
        place += 1
    while between == ",":
        number, counted = number + text.count("\n", counted, place), place
        row, place = _object(path, number, text, place)
        yield number, row
        place = _after_space(text, place)
        between = text[place : place + 1]
        place = _after_space(text, place + 1)
    number += text.count("\n", counted, place)
    if between != "]":
        raise InputError(f"{path}:{number}: not JSON: expected a comma or the end of the list after an object")
    if _after_space(text, place) < len(text):
        raise InputError(f"{path}:{number}: not JSON: something follows the list")


def _after_space(text: str, place: int) -> int:
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing as well


def _object(path: Path, number: int, text: str, place: int) -> tuple[_Row, int]:
    """Read the object that begins at a place of a text, and tell where it ends."""
    try:
        row, end = _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        line = number + text.count("\n", place, error.pos)
        raise InputError(f"{path}:{line}: not JSON: {error.msg} (column {error.colno})") from None
    except InputError as error:
        raise InputError(f"{path}:{number}: {error}") from None
    except RecursionError:
        raise InputError(f"{path}:{number}: not JSON: nested too deeply") from None
    except ValueError:  # Python converts no integer of thousands of digits
        raise InputError(f"{path}:{number}: not JSON that can be read: a number has too many digits") from None
    if not isinstance(row, dict):
        raise InputError(
            f'{path}:{number}: expected a JSON object such as {{"question": "…", "answer": "…"}}, '
            f"found {type(row).__name__}"
        )
    return row, end


def _without_duplicates(pairs: list[tuple[str, Any]]) -> _Row:
    row = dict(pairs)
    if len(row) < len(pairs):  # JSON does not say which of them counts
        raise InputError(f"the field {_twice([name for name, _ in pairs])} stands there twice; remove one")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"not JSON: {name} is no JSON value; write null or a text")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, _Row]]:
    # StringIO, since str.splitlines would also split inside a field, at U+2028 and others
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    while True:
        number = reader.line_num + 1  # a quoted field may hold newlines: the row is named by its first line
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}:{number}: not CSV: {error}") from None
        if row is None:
            return
        if not row:
            continue
        if columns is None:
            columns = _columns(row, f"{path}:{number}")
            continue
        if len(row) != len(columns):
            raise InputError(f"{path}:{number}: the row does not have the header's {len(columns)} columns")
        yield number, dict(zip(columns, row, strict=True))


def _columns(header: list[str], where: str) -> list[str]:
    columns = [name.strip().lower().replace(" ", "_") for name in header]
    named = [name for name in columns if name]  # spreadsheets write columns without a name
    if len(set(named)) < len(named):
        raise InputError(f"{where}: the column {_twice(named)} stands there twice; remove one")
    return columns


def _twice(names: list[str]) -> str:
    """Quote the first name that stands there twice."""
    return short([Counter(names).most_common(1)[0][0]])


@dataclass(frozen=True)
class FirstPair:
    """The first answer to a user in a conversation."""

    asked: Sequence[_Message]  # the user's turns right before the answer
    answer: _Message | None  # the assistant's turn; None where there is none
    left_out: Sequence[str]  # kinds of turns that are in neither


def first_pair(messages: Any) -> FirstPair:
    """Find the first answer to a user, and what it answers.

    `messages` are objects with `role` and `content`, in order. Raises InputError if they are no such objects, no user
    says anything, or an answer follows another role.
    """
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InputError("`messages` must be a list of objects with `role` and `content`")
    turns = [message for message in messages if message.get("role") not in _SYSTEM_ROLES]
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
            f"allowed there: {', '.join(_SYSTEM_ROLES)}, user, assistant. Remove the row"
        )
    left_out = {
        "system text": any(message.get("role") in _SYSTEM_ROLES and message.get("content") for message in messages),
        "turns before the first question": start > 0,
        "turns after the first answer": end + 1 < len(turns),
    }
    return FirstPair(turns[start:end], turns[end] if end < len(turns) else None, [k for k, v in left_out.items() if v])
