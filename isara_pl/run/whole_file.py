"""Files that are never seen half-written."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from isara_pl.errors import InputError

UNFINISHED = ".unfinished"  # ending of a file's name while it is written, after the number of the process
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place, and rename it when all of it is on disk.

    Its folder is made where it is missing; line ends are written as they are.

    Raises InputError if the disk is full, or the file cannot be written for another reason.
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
        if error.errno not in NO_FOLDER_SYNC:
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
