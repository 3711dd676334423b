"""Where a run writes."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer


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
