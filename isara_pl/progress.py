"""How far a fit is, read from the trainer."""

from lightning.pytorch import Trainer


def finished_outer_epoch(trainer: Trainer, epochs_per_outer_epoch: int) -> bool:
    """Whether the epoch that is ending is the last of its outer epoch and had any training step.

    An outer epoch that the α rule ended has none, although Lightning calls its hooks.

    Args:
        trainer: The trainer, in a hook at the end of a training epoch.
        epochs_per_outer_epoch: Passes over the training set in each outer epoch.
    """
    last = (trainer.current_epoch + 1) % epochs_per_outer_epoch == 0
    return last and trainer.fit_loop.epoch_loop.batch_progress.current.completed > 0
