"""The rows of tables: CSV as spreadsheets write it, and Parquet."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError, first_line, printable, short
from isara_pl.growth.contents import LARGEST, too_large

Row = dict[str, Any]
_DELIMITERS = (",", ";", "\t", "|")
_NONE = "\x1f"  # stands in no text: every line is one cell
_EXCELS = re.compile(r"sep=(.)\r?\n")  # a first line that tells Excel the delimiter
_ROWS_AT_ONCE = 256
OWN_NAMES = "or tell yours by `columns`, as in question=Frage,answer=Antwort"


@lru_cache(maxsize=1024)
def normal(name: str) -> str:
    """Give the name of a field as it is compared: without capitals, with underscores in place of spaces."""
    return name.strip().lower().replace(" ", "_")


def csv_rows(path: Path, text: str, names: frozenset[str]) -> Iterator[tuple[str, Row]]:
    """Yield the place and the fields of every row below the header; a row without any text has none.

    Delimiters are commas, semicolons, tabs or bars, whichever make most known `names` of the header, then most columns.
    Raises InputError, whose message begins with `FILE:LINE:`, for a row that cannot be read.
    """
    excels = _EXCELS.match(text)
    delimiter = excels[1] if excels else _delimiter(path, text, names)
    columns: list[str] | None = None
    for number, cells in _records(path, text, delimiter):
        if excels and number == 1:
            continue
        where = f"{path}:{number}"
        if columns is None:
            if _any_text(cells):
                columns = columns_of(cells, where, names)
            continue
        surplus = cells[len(columns) :]
        if _any_text(surplus):
            raise InputError(
                f"{where}: the row has {len(cells)} cells, but the header's {len(columns)} columns are "
                f"{short(columns)}; put quotation marks around a cell that holds {delimiter!r}, or remove what is "
                f"surplus: {short(surplus)}"
            )
        # spreadsheets leave out empty cells at a row's end
        yield where, dict(zip(columns, cells, strict=False)) if _any_text(cells) else {}


def parquet_rows(path: Path, content: bytes, names: frozenset[str]) -> Iterator[tuple[str, Row]]:
    """Yield the place and those fields of every row whose names are known.

    Raises InputError, whose message begins with `FILE:`, if the file is damaged, holds more than `LARGEST`, or has no
    column of a known name.
    """
    import pyarrow as pa  # type: ignore[import-untyped]  # ships no types; only here: few files are of this kind
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        given = file.schema_arrow.names
        columns = columns_of(given, str(path), names)
        known = [name for name, column in zip(given, columns, strict=True) if column in names]
        number, size = 0, 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=known, use_threads=False):
            size += batch.nbytes + batch.num_rows
            if size > LARGEST:
                raise too_large(path)
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", {normal(name): value for name, value in row.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise InputError(f"{path}: not Parquet that can be read: {printable(first_line(error)[:200])}") from None


def is_table(path: Path, text: str, names: frozenset[str]) -> bool:
    """Whether a text begins with a header in which a name is known."""
    return _score(path, text, _delimiter(path, text, names), names)[0] > 0


def doubled(names: list[str]) -> str | None:
    """Quote the first name that stands there twice; None where all differ."""
    return short([Counter(names).most_common(1)[0][0]]) if len(set(names)) < len(names) else None


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of every record that is not an empty line."""
    # StringIO, since str.splitlines would also split inside a field, at U+2028 and others
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        number = reader.line_num + 1  # a quoted field may hold newlines: the row is named by its first line
        try:
            cells = next(reader, None)
        except csv.Error as error:
            follows = "text follows the closing quotation mark of a cell; one inside of it is written twice"
            raise InputError(
                f"{path}:{number}: not CSV: {follows if 'expected after' in str(error) else error}"
            ) from None
        if cells is None:
            return
        if cells:
            yield number, cells


def _delimiter(path: Path, text: str, names: frozenset[str]) -> str:
    best = max(_DELIMITERS, key=lambda delimiter: _score(path, text, delimiter, names))
    if _score(path, text, best, names)[1] > 1:
        return best
    # one column: what looks like a delimiter is part of the text, but where only empty cells follow
    return next((delimiter for delimiter in _DELIMITERS if _has_one_column(path, text, delimiter)), _NONE)


def _score(path: Path, text: str, delimiter: str, names: frozenset[str]) -> tuple[int, int]:
    """Count what a delimiter makes of the header: known names, and columns with any name."""
    try:
        header = next((cells for _, cells in _records(path, text, delimiter) if _any_text(cells)), [])
    except InputError:
        return (0, 0)
    return sum(normal(cell) in names for cell in header), sum(bool(cell.strip()) for cell in header)


def _has_one_column(path: Path, text: str, delimiter: str) -> bool:
    try:
        return not any(_any_text(cells[1:]) for _, cells in _records(path, text, delimiter))
    except InputError:
        return False


def _any_text(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def columns_of(header: list[str], where: str, names: frozenset[str]) -> list[str]:
    """Give the names of columns; spreadsheets write some without."""
    columns = [normal(name) for name in header]
    twice = doubled([name for name in columns if name])
    if twice:
        raise InputError(f"{where}: the column {twice} stands there twice; remove one")
    if not names.intersection(columns):
        raise InputError(
            f"{where}: no question field among the columns {short(columns)}; the first row must name them: question "
            f"and answer, {OWN_NAMES}"
        )
    return columns
