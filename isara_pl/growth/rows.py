"""The rows of the files that people give, each with its place, told apart by what is in them; those of JSON."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from isara_pl.errors import InputError, short
from isara_pl.growth.contents import PARQUET, SHEETS, ZIP, content_of, text_of
from isara_pl.growth.hub_data import HubData, Source
from isara_pl.growth.tables import Row, csv_rows, doubled, is_table, normal, parquet_rows
from isara_pl.growth.workbooks import workbook_rows

_OF_JSON = (".jsonl", ".ndjson", ".json")
_ENDINGS = (*_OF_JSON, *SHEETS, ".parquet")
_SPACE = re.compile(r"[ \t\r\n]*")  # what JSON allows between values
_JSON_START = re.compile(r'(\[\s*)?\{\s*"')


def read_rows(source: Source, names: frozenset[str]) -> Iterator[tuple[str, Row]]:
    """Yield the place and the fields of every row: JSON lines, a JSON list of objects, a table, or of the hub.

    A place is `FILE:LINE`, `FILE:LINE: row N` in a list, or `FILE: row N` in Parquet and of the hub. Names of fields
    are `normal`. `names` are those that are known; a table must have one of them. Raises InputError, whose message
    begins with `FILE:`, if the file or a row of it cannot be read.
    """
    if isinstance(source, HubData):
        yield from source.rows(names)
        return
    path = source
    content = content_of(path)
    ending = Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()
    if content.startswith(PARQUET):
        yield from parquet_rows(path, content, names)
        return
    if content.startswith(ZIP):
        yield from workbook_rows(path, content, names)
        return
    if ending not in _ENDINGS:
        raise InputError(f"{path}: unknown kind of file {ending!r}; allowed: {', '.join(_ENDINGS)}, each also with .gz")
    text = text_of(path, content)
    start = _after_space(text, 0)
    if not text[start:]:
        return
    if text[start] in "[{" and (ending not in SHEETS or _JSON_START.match(text, start)):
        for place, row in _listed(path, text, start) if text[start] == "[" else _lines(path, text, start, names):
            yield place, _normal(row, place, names)
    elif ending in _OF_JSON and not is_table(path, text, names):
        line = text.count("\n", 0, start) + 1
        raise InputError(f"{path}:{line}: not JSON: expected one object a line, or a list of objects")
    else:
        yield from csv_rows(path, text, names)


def _normal(row: Row, place: str, names: frozenset[str]) -> Row:
    """Give a row with `normal` names; of JSON, where also other names may differ by their capitals alone."""
    twice = doubled([name for name in map(normal, row) if name in names])
    if twice:
        raise InputError(f"{place}: the field {twice} stands there twice; remove one")
    return {normal(name): value for name, value in row.items()}


def _lines(path: Path, text: str, start: int, names: frozenset[str]) -> Iterator[tuple[str, Row]]:
    _refuse_one_object(path, text, start, names)
    # at "\n" only: JSON may hold other line separators, such as U+2028, inside a string
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if line := line.strip():
            row, end = _object(path, number, line, 0)
            if end < len(line):
                raise InputError(f"{path}:{number}: not JSON: something follows the object; give one object a line")
            yield f"{path}:{number}", row


def _refuse_one_object(path: Path, text: str, start: int, names: frozenset[str]) -> None:
    """Refuse an object over several lines, and a single one that holds rows in a form of its own."""
    line = text.count("\n", 0, start) + 1
    try:
        row, end = _object(path, line, text, start)
    except InputError:
        return  # told when its line is read
    is_alone = _after_space(text, end) == len(text)
    others = [value for name, value in row.items() if not (isinstance(value, list) and normal(name) in names)]
    holds_rows = bool(others) and all(isinstance(value, dict | list) for value in others)
    if "\n" in text[start:end] or (is_alone and holds_rows):
        raise InputError(
            f"{path}:{line}: an object with the fields {short([*row])} that is no row by itself; expected one object a "
            'line, or a list of objects, [{"question": "…", "answer": "…"}, …]. With pandas: to_json(orient="records")'
        )


def _listed(path: Path, text: str, start: int) -> Iterator[tuple[str, Row]]:
    """Yield the objects of one JSON list, with the lines on which they begin and their numbers."""
    line, counted, between, number = 1, 0, ",", 0
    place = _after_space(text, start + 1)
    if text[place : place + 1] == "]":
        between = "]"
        place += 1
    while between == ",":
        line, counted, number = line + text.count("\n", counted, place), place, number + 1
        row, place = _object(path, line, text, place, f": row {number}")
        yield f"{path}:{line}: row {number}", row
        place = _after_space(text, place)
        between = text[place : place + 1]
        place = _after_space(text, place + 1)
    line += text.count("\n", counted, place)
    if between != "]":
        raise InputError(
            f"{path}:{line}: not JSON: expected a comma or the end of the list after an object, behind row {number}"
        )
    if _after_space(text, place) < len(text):
        raise InputError(f"{path}:{line}: not JSON: something follows the list")


def _after_space(text: str, place: int) -> int:
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing as well


def _object(path: Path, line: int, text: str, place: int, which: str = "") -> tuple[Row, int]:
    """Read the object that begins at a place of a text, on a line, and tell where it ends; `which` row it is."""
    where = f"{path}:{line}{which}"
    try:
        row, end = _DECODER.raw_decode(text, place)
    except json.JSONDecodeError as error:
        line += text.count("\n", place, error.pos)
        raise InputError(f"{path}:{line}{which}: not JSON: {error.msg} (column {error.colno})") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except RecursionError:
        raise InputError(f"{where}: not JSON: nested too deeply") from None
    except ValueError:  # Python converts no integer of thousands of digits
        raise InputError(f"{where}: not JSON that can be read: a number has too many digits") from None
    if not isinstance(row, dict):
        raise InputError(
            f'{where}: expected a JSON object such as {{"question": "…", "answer": "…"}}, found {type(row).__name__}'
        )
    return row, end


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Row:
    twice = doubled([name for name, _ in pairs])
    if twice:  # JSON does not say which of them counts
        raise InputError(f"the field {twice} stands there twice; remove one")
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise InputError(f"not JSON: {name} is no JSON value; write null or a text")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
