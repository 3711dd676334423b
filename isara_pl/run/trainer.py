"""What is read from a trainer: what Lightning sets without declaring it, and how far a fit is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer  # takes seconds to import


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Give the trainer's callbacks, in their order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it without declaring it
    return callbacks


def is_trial(trainer: Trainer) -> bool:
    """Whether this is Lightning's `fast_dev_run`, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # as above


def finished_outer_epoch(trainer: Trainer, epochs_per_outer_epoch: int) -> bool:
    """Whether the epoch that is ending is the last of its outer epoch, had any training step, and was not cut short.

    An outer epoch that the α rule ended has none, although Lightning calls its hooks. For hooks at the end of a
    training epoch.
    """
    last = (trainer.current_epoch + 1) % epochs_per_outer_epoch == 0
    return last and trainer.fit_loop.epoch_loop.batch_progress.current.completed > 0 and not is_cut(trainer)


def is_cut(trainer: Trainer) -> bool:
    """Whether the newest epoch has batches left: `max_steps`, `max_time` or a callback ended the fit within it.

    Lightning counts such an epoch as one that is over. For hooks at the end of a training epoch, and later.
    """
    batches = trainer.fit_loop.epoch_loop.batch_progress
    return 0 < batches.current.ready < trainer.num_training_batches and not batches.is_last_batch


def trained_epochs(trainer: Trainer) -> tuple[int, bool]:
    """Give how many epochs the module has been trained for to their end, and whether it stands within another one."""
    epochs: Any = trainer.fit_loop.epoch_progress.current  # Lightning types them as counts of less
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    if epochs.started == epochs.processed:  # between two epochs
        return (epochs.processed - 1, True) if is_cut(trainer) else (epochs.processed, False)
    if batches.current.processed == batches.current.ready > 0 and not is_cut(trainer):
        return epochs.processed + 1, False  # after the last batch, before the end of the epoch
    return epochs.processed, batches.current.processed > 0
