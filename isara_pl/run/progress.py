"""How far a fit is, read from the trainer."""

from typing import Any

from lightning.pytorch import Trainer


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
