"""What is in a file that people give: unpacked, in bounds, and as text in the encoding that it is in."""

import gzip
import io
import re
import zlib
from pathlib import Path

from isara_pl.errors import InputError, did_you_mean_path

LARGEST = 1 << 30  # bytes, also of what was packed: far more than seeds or items take
PARQUET = b"PAR1"
ZIP = b"PK\x03\x04"  # a workbook is one
SHEETS = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".xls")  # endings of what spreadsheets write
_GZIP = b"\x1f\x8b"
AS_CSV = "save the sheet as CSV, in Excel as `CSV UTF-8`"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # old Excel's, and of any workbook with a password
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_UNPACK = "unpack it, or pack it with gzip"
# how other kinds of files begin, and what to do
_OTHERS = {
    b"BZh": ("packed with bzip2", _UNPACK),
    b"\xfd7zXZ\0": ("packed with xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", _UNPACK),
    b"ARROW1": ("an Arrow file", "save it as Parquet or JSONL"),
    b"\x80\x04": ("a pickle, which could run code and is never loaded", "save it as Parquet, JSONL or CSV"),
    b"\x80\x05": ("a pickle, which could run code and is never loaded", "save it as Parquet, JSONL or CSV"),
}
# byte order marks, that of UTF-32 before that of UTF-16 with which it begins
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_FOREIGN = re.compile(rb"[\x80-\xff]{4}")  # Latin script in Windows-1252 has letters of ASCII between such bytes
_BESIDE = 12  # bytes on either side of a bad one that are shown


def content_of(path: Path) -> bytes:
    """Read a file, and unpack what gzip packed.

    Raises InputError, whose message begins with `FILE:`, if it is no file, cannot be read, is larger than `LARGEST`, or
    is of a kind that is not read.
    """
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file.{did_you_mean_path(str(path))}")
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path}: not a regular file, but a folder, a pipe or a device; give a file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if content.startswith(_GZIP):
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: packed with gzip, but damaged or cut off ({error}); pack it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(content) > LARGEST:
        raise too_large(path)
    if content.startswith(_OLE):
        locked = "a workbook with a password; remove it in Excel (File, Info, Protect Workbook)"
        old = f"a workbook of old Excel (.xls); save it as .xlsx, or {AS_CSV}"
        raise InputError(f"{path}: this is {locked if _ENCRYPTED in content else old}")
    for start, (kind, cure) in _OTHERS.items():
        if content.startswith(start):
            raise InputError(f"{path}: this is {kind}; {cure}")
    return content


def too_large(path: Path) -> InputError:
    """Say that a file holds too much; pages of a packed one may be far larger than the file."""
    return InputError(f"{path}: holds more than {LARGEST >> 30} GiB; split it into several files")


def text_of(path: Path, content: bytes) -> str:
    """Decode a text: UTF-8, or what its byte order mark or its first characters say.

    Raises InputError, whose message begins with `FILE:LINE:`, if it is in another encoding, or damaged.
    """
    mark = next((mark for mark in _MARKS if content.startswith(mark)), None)
    encoding = _MARKS[mark] if mark else _unmarked(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
        hint = _hint(content, error.start) if encoding == "utf-8" else "damaged"
        in_excel = ", in Excel as `CSV UTF-8`" if path.suffix.lower() in SHEETS else ""
        raise InputError(
            f"{path}:{line}: not {name} text (byte {error.start}), but {hint}; save the file as UTF-8{in_excel}"
        ) from None


def _unmarked(content: bytes) -> str:
    """Tell UTF-16 by its zeros: names of fields, and what JSON begins with, are ASCII."""
    zeros = [byte == 0 for byte in content[:4]]
    return "utf-16-le" if zeros == [False, True] * 2 else "utf-16-be" if zeros == [True, False] * 2 else "utf-8"


def _hint(content: bytes, bad: int) -> str:
    """Say which encoding it seems to be; a text that has held UTF-8 so far is none of another."""
    start = max(content.rfind(b"\n", 0, bad) + 1, bad - _BESIDE)
    shown = content[start : bad + _BESIDE].splitlines()[0] if content[bad : bad + 1] else b""
    try:
        as_windows = shown.decode("cp1252")
    except UnicodeDecodeError:
        as_windows = ""
    if not content[:bad].isascii() or _FOREIGN.search(content, bad) or not as_windows.isprintable() or not as_windows:
        return "in another encoding, or damaged"
    return f"perhaps Windows-1252, as which this reads {as_windows!r}"
