"""Lightning's ModelCheckpoint, such that a fit can go on from each of its checkpoints."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also writes the last checkpoint at the end of every epoch.

    With `every_n_train_steps` or `train_time_interval`, Lightning writes none there, and the one that it may write
    after an epoch's last step has it skip the measuring and the exporting of that epoch when it goes on from there.
    This one leaves that one out, and writes the last checkpoint when the epoch is over. All options are Lightning's.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where Lightning does, but for the last step of an epoch."""
        if batch_idx + 1 < trainer.num_training_batches:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning does, and else the last checkpoint."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
