"""The rows of Excel's workbooks (.xlsx), which openpyxl reads, an extra."""

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError, first_line, printable, short
from isara_pl.growth.contents import AS_CSV, LARGEST, too_large
from isara_pl.growth.tables import OWN_NAMES, Row, columns_of, normal

_WORKBOOK = "xl/workbook"  # begins the name of the part that lists the sheets
_MOST_ROWS = 1 << 20  # of a sheet, Excel's own limit; a damaged one may count far beyond
_AS_TYPED = ("General", "@", "0")  # formats of cells in which Excel shows a number as it was typed


def workbook_rows(path: Path, content: bytes, names: frozenset[str]) -> list[tuple[str, Row]]:
    """Give the place and those fields of every row below the header whose names are known; a blank row has none.

    Read is the one visible sheet whose first row with any text has a known name. Raises InputError, whose message
    begins with `FILE:` or `FILE:ROW:`, if there is none or several, or a cell's text is not in the file.
    """
    if not _is_workbook(path, content):
        raise InputError(f"{path}: a zip archive that is no workbook of Excel (.xlsx); {AS_CSV}, or as .xlsx")
    if find_spec("openpyxl") is None:
        raise InputError(f"{path}: a workbook of Excel needs openpyxl: pip install 'isara_pl[excel]'; or {AS_CSV}")
    import openpyxl  # an extra

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what openpyxl leaves out, such as validations
            # what cells show, and beside it the formulas: a result that was never computed looks like an empty cell
            shown, written = (
                openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=shows) for shows in (True, False)
            )
            sheet = _sheet(path, shown, names)
            return list(_rows(path, _cells(path, shown[sheet]), _cells(path, written[sheet]), names))
    except InputError:
        raise
    except Exception as error:  # whatever its parts raise on a damaged file
        said = printable(first_line(error)[:200])
        raise InputError(f"{path}: not a workbook that can be read ({said}); save it again, or {AS_CSV}") from None


def _is_workbook(path: Path, content: bytes) -> bool:
    try:
        parts = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except zipfile.BadZipFile:
        raise InputError(
            f"{path}: a workbook or another zip archive that is damaged or cut off; save it again"
        ) from None
    if sum(part.file_size for part in parts) > LARGEST:
        raise too_large(path)
    return any(part.filename.startswith(_WORKBOOK) and part.filename.endswith(".xml") for part in parts)


def _sheet(path: Path, book: Any, names: frozenset[str]) -> str:
    """Give the name of the one sheet whose header has a known name."""
    visible = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    headers: dict[str, Sequence[Any]] = {
        sheet.title: next((row for _, row in _cells(path, sheet) if _any_text(row)), ()) for sheet in visible
    }
    usable = [title for title, header in headers.items() if any(normal(_name(cell)) in names for cell in header)]
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise InputError(
            f"{path}: the sheets {short(usable)} all have columns that can be read; keep one of them, hide the "
            f"others, or {AS_CSV}"
        )
    found = "; ".join(f"{title!r} has {short([*map(_name, header)]) or 'nothing'}" for title, header in headers.items())
    raise InputError(
        f"{path}: no sheet with columns that can be read; the first row of one must name them: question and answer, "
        f"{OWN_NAMES}. Found: {found or 'no visible sheet'}"
    )


def _rows(
    path: Path,
    shown: Iterator[tuple[int, Sequence[Any]]],
    written: Iterator[tuple[int, Sequence[Any]]],
    names: frozenset[str],
) -> Iterator[tuple[str, Row]]:
    columns: list[str] | None = None
    for (number, cells), (_, as_written) in zip(shown, written, strict=True):
        where = f"{path}:{number}"
        if columns is None:
            if _any_text(cells):
                columns = columns_of([_name(cell) for cell in cells], where, names)
            continue
        both = [pair for pair in zip(columns, cells, as_written, strict=False) if pair[0] in names]
        row = {name: _text(cell, formula, where) for name, cell, formula in both}
        yield where, row if _any_text(cells) else {}


def _cells(path: Path, sheet: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    sheet.reset_dimensions()  # some programs write wrong ones
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        if number > _MOST_ROWS:
            raise InputError(f"{path}: the sheet {sheet.title!r} has more than {_MOST_ROWS:,} rows; save it again")
        yield number, cells


def _any_text(cells: Sequence[Any]) -> bool:
    return any(cell.value is not None and str(cell.value).strip() for cell in cells)


def _name(cell: Any) -> str:
    return "" if cell.value is None else str(cell.value)


def _text(cell: Any, written: Any, where: str) -> str | None:
    """Give a cell's text as Excel shows it; where the file does not hold that, raise InputError."""
    value, as_text = cell.value, "format its column as Text and type it again"
    if value is None and written.data_type == "f":
        what, cure = "a formula whose result is not in the file", "open the file in Excel and save it there"
    elif cell.data_type == "e":
        what, cure = f"the error {value}", "mend it, or remove the row"
    elif isinstance(value, str | None):
        return value if value is None else value.replace("_x000D_\n", "\n")  # how Excel writes a Windows line break
    elif isinstance(value, bool):
        return str(value).upper()
    elif not isinstance(value, int | float):
        what, cure = "a date or a time, of which the file does not hold how it is shown", as_text
    elif cell.number_format not in _AS_TYPED:
        what, cure = f"the number {value} in the format {cell.number_format!r}, in which it is shown otherwise", as_text
    else:
        return f"{value:.15g}" if isinstance(value, float) else str(value)
    raise InputError(f"{where}: the cell {cell.coordinate} holds {what}; {cure}")
