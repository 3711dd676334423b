"""Where a run writes, and who may write there."""

from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from lightning.pytorch import Trainer

from isara_pl.errors import InputError
from isara_pl.growth.pool import POOL, REJECTED

LOCK = "run.lock"
CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT = "last.ckpt"


def run_folder(trainer: Trainer) -> Path | None:
    """Give the folder of everything that a run leaves behind: the trainer's `default_root_dir`.

    Args:
        trainer: The run's trainer.

    Returns:
        The folder, which need not exist yet; None under `fast_dev_run`, which leaves no files, and
        in processes other than the first.
    """
    untyped: Any = trainer  # Lightning sets `fast_dev_run` without declaring it
    return Path(trainer.default_root_dir) if trainer.is_global_zero and not untyped.fast_dev_run else None


def lock_run_folder(folder: Path) -> BaseFileLock:
    """Keep every other process from writing into a run folder, until the lock is released or this process ends.

    A folder with links that lead out of it is refused: through them, outputs would overwrite other files. The
    folder itself may be a link.

    The operating system holds the lock, so a killed process leaves none behind; the file `run.lock` may stay.

    Args:
        folder: The run folder; it is made where it is missing.

    Raises:
        InputError: If another process holds the lock, a link leads out, or nothing can be written there.
    """
    _refuse_links(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another process is writing into {folder} (it holds {folder / LOCK}). "
            "Wait for its end, stop it, or choose another folder with --run_dir"
        ) from None
    except OSError as error:
        raise InputError(
            f"nothing can be written into {folder}: {error.strerror or error}. "
            "Choose a folder of your own with --run_dir"
        ) from error
    return lock


def _refuse_links(folder: Path) -> None:
    inside = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise InputError(
                f"{path} is a link to {path.resolve()}, outside of the run folder. A run writes inside its own "
                "folder only: remove the link, or choose another folder with --run_dir"
            )


def safe_on_disk(folder: Path) -> str:
    """Say what a fit that ended early has left behind, and how to go on from there.

    Args:
        folder: The run folder.

    Returns:
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
