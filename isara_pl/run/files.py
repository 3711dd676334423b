"""Files: their paths as users write them; never seen half-written, whole or append-only, whenever a kill comes."""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.errors import InputError

POOL = "pool.jsonl"
REJECTED = "rejected.jsonl"

UNFINISHED = ".unfinished"  # ending of a file's name while it is written, after the number of the process
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

T = TypeVar("T")


def expanded(path: str) -> str:
    """Give a path with the home folder in place of a `~` that it begins with.

    A text that does not begin so stays as it is. Raises InputError if this user has no home folder.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        if path != "~" and not path.startswith("~/"):  # that of a user who is unknown: a name like any other
            return path
        raise InputError(f"{path}: there is no home folder here, since HOME is not set. Give the whole path") from None


def unnameable(path: str) -> str:
    """Say that the system's encoding has no name for a path, and what to do."""
    return (
        f"{path}: the encoding of this system's locale, {sys.getfilesystemencoding()}, has not all characters of this "
        "path. Set PYTHONUTF8=1 in the environment"
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place, and rename it when all of it is on disk.

    Its folder is made where it is missing; line ends are written as they are. Raises InputError if the disk is full, or
    the file cannot be written for another reason.
    """
    save_whole(path, text.encode("utf-8"))


def save_whole(path: Path, content: bytes | memoryview) -> None:
    """As `write_whole`, for bytes.

    Raises InputError if the disk is full, or the file cannot be written for another reason.
    """
    # two processes may write one file, such as a report
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)  # a link there would lead the text to another file
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # it would keep a full disk full
            unfinished.unlink(missing_ok=True)
        raise InputError(
            f"{path} could not be written: {error.strerror or error}. What stood there before is as it was"
        ) from error


def sync_folder(folder: Path) -> None:
    """Return when a folder's list of files is on disk: a new or renamed file survives a crash of the machine only then.

    Drives that cannot do that, such as CIFS and the shared folders of virtual machines, do it when they see fit.
    """
    if os.name == "nt":  # Windows opens no folders, and needs none of this
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def give_usual_permissions(folder: Path) -> None:
    """Give the files of a folder the permissions of any new file there: safetensors makes its own its owner's alone.

    Folders inside are gone through as well.
    """
    any_new = folder / f"permissions.{os.getpid()}{UNFINISHED}"
    any_new.touch()
    usual = stat.S_IMODE(any_new.stat().st_mode)
    any_new.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(OSError):  # on a drive that knows no permissions
                path.chmod(usual)


def append(path: Path, lines: Sequence[str]) -> None:
    """Append lines, and return when all of them are on disk.

    A last line that a killed process left unfinished is cut off first. If the lines cannot be written in full, the file
    is left as it was. The file is made where it is missing. Raises InputError if the disk is full, or the file cannot
    be written for another reason.
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

    A file that is missing has none. Raises InputError if a line is damaged. The message begins with `FILE:LINE:`.
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
