"""Where a run writes, and who may write there."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import BaseFileLock, FileLock, Timeout

from isara_pl.errors import InputError
from isara_pl.run.files import POOL, REJECTED, UNFINISHED
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.trainer import is_trial

if TYPE_CHECKING:
    from lightning.pytorch import Trainer  # takes seconds to import

LOCK = "run.lock"
CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT = "last.ckpt"
SERVED = "served"  # adapters on their way to an external engine
# what a run writes; anything else in the folder is none of its business
_OUTPUTS = (
    *("*.jsonl", "*.json", "*.csv", "*.html", "*.yaml", "*.lock", "*.unfinished", "*.ckpt"),
    *("adapter", ".adapter-*", CHECKPOINTS, "evaluation", "logs", "lightning_logs", "teacher", SERVED),
)
# what a file system says that has no locks: Lustre without `flock`, NFS without its lock daemon, some of FUSE
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


def run_folder(trainer: "Trainer") -> Path | None:
    """Give the folder of everything that a run leaves behind: the trainer's `default_root_dir`.

    It need not exist yet. None under `fast_dev_run`, which leaves no files, and in processes other than the first.
    """
    return Path(trainer.default_root_dir) if trainer.is_global_zero and not is_trial(trainer) else None


def make_run_folder(folder: Path) -> None:
    """Make a run folder where it is missing. Raises InputError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise InputError(
            f"nothing can be written into {folder}: {error.strerror}. Choose a folder of your own with --run_dir"
        ) from error


class RunLock:
    """Keeps every other process from writing into a run folder, until it is released or this process ends.

    The operating system holds the lock, so a killed process leaves none behind; the file `run.lock` stays. A file
    system that has no locks is warned of, and nothing is kept out there.
    """

    def __init__(self) -> None:
        self._lock: BaseFileLock | None = None

    def acquire(self, folder: Path) -> None:
        """Take the lock of a folder; the one that was held before is released.

        A folder with links that lead out of it is refused: through them, outputs would overwrite other files. The
        folder itself may be a link. Raises InputError if another process holds the lock, a link leads out, or nothing
        can be written there.
        """
        self.release()
        make_run_folder(folder)
        _refuse_links(folder)
        lock = run_lock(folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"another process is writing into {folder} (it holds {folder / LOCK}). "
                "Wait for its end, stop it, or choose another folder with --run_dir"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise InputError(
                    f"{folder / LOCK} cannot be locked: {error.strerror}. Choose another folder with --run_dir"
                ) from error
            rank_zero_warn(
                f"{folder}: the file system there has no locks ({error.strerror}), so nothing keeps other processes "
                "out. Start no other run in this folder before this one has ended"
            )
        self._lock = lock
        for left_over in folder.rglob(f"*{UNFINISHED}"):  # by a process that was killed while writing
            left_over.unlink(missing_ok=True)

    def release(self) -> None:
        """Let others in, if the lock is held."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def run_lock(folder: Path) -> BaseFileLock:
    """Give the lock of a run folder, not acquired yet."""
    # the fallback would take the file itself for the lock, which is there in every run folder
    return FileLock(folder / LOCK, fallback_to_soft=False)


def _refuse_links(folder: Path) -> None:
    inside = folder.resolve()
    top = [path for pattern in _OUTPUTS for path in folder.glob(pattern)]
    below = [path for each in top if not each.is_symlink() for path in each.rglob("*")]
    for path in [*top, *below]:
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise InputError(
                f"{path} is a link to {path.resolve()}, outside of the run folder. A run writes inside its own "
                "folder only: remove the link, or choose another folder with --run_dir"
            )


def safe_on_disk(folder: Path) -> str:
    """Say what a fit that ended early has left behind, and how to go on from there.

    A line with its end; nothing where nothing is there.
    """
    checkpoint = folder / CHECKPOINTS / LAST_CHECKPOINT
    if not (folder / POOL).exists():
        return ""
    samples, rejected = (_lines(folder / name) for name in (POOL, REJECTED))
    trained = f"the newest checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
    return (
        f"safe in {folder}: {samples} samples and {rejected} rejected candidates; {trained}. "
        "To go on: the same command with --ckpt_path last\n"
    )


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
