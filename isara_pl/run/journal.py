"""Append-only files of lines, which survive a kill, a full disk and a crash of the machine at any moment."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.errors import InputError
from isara_pl.run.whole_file import sync_folder

POOL = "pool.jsonl"
REJECTED = "rejected.jsonl"

T = TypeVar("T")


def append(path: Path, lines: Sequence[str]) -> None:
    """Append lines, and return when all of them are on disk.

    A last line that a killed process left unfinished is cut off first. If the lines cannot be written
    in full, the file is left as it was.

    The file is made where it is missing.

    Raises InputError if the disk is full, or the file cannot be written for another reason.
    """
    is_new = not path.exists()
    try:
        with path.open("a+b", buffering=0) as file:
            end = _cut_unfinished_line(file, path)
            try:
                _write(file, "".join(line + "\n" for line in lines).encode())
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):  # the next start cuts it off otherwise
                    file.truncate(end)
                raise
        if is_new:
            sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"{path} could not be appended to: {error.strerror}. All lines that it had before are as they were"
        ) from error


def entries(path: Path, read: Callable[[str], T]) -> Iterator[T]:
    """Yield the entries of a file, without a last line that a killed process left unfinished.

    A file that is missing has none.

    Raises InputError if a line is damaged. The message begins with `FILE:LINE:`.
    """
    if not path.exists():
        return
    content = path.read_bytes()
    # what follows the last line end is not yielded: a killed process, or one that is writing now, left it
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            entry = read(line.decode("utf-8"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: damaged line ({error}). Restore the file from a copy, or start anew elsewhere"
            ) from None
        yield entry


def _cut_unfinished_line(file: BinaryIO, path: Path) -> int:
    """Cut off what follows the last line end; give the size that is left."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if size == 0 or file.read(1) == b"\n":
        return size
    file.seek(0)
    end = file.read().rfind(b"\n") + 1
    file.truncate(end)
    rank_zero_info(
        f"{path}: cut off the last line, which an interrupted process left unfinished; its sample is generated again"
    )
    return end


def _write(file: BinaryIO, content: bytes) -> None:
    """Write all of it: an unbuffered file may take a part only, e.g. when the disk is nearly full."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
