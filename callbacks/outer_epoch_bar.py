"""Lightning's progress bar, with the outer epoch in place of the number of an epoch."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import convert_inf

from isara_pl.callbacks.evaluation import data_of


class OuterEpochBar(TQDMProgressBar):
    """Lightning's TQDMProgressBar, which says `outer epoch 2 of 2` where that says `Epoch 3`.

    The command line takes it where no other bar is among the callbacks.
    """

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin the bar of an epoch, with no other words before these: Lightning draws `Epoch 3` first."""
        if self._leave:
            self.train_progress_bar = self.init_train_tqdm()
        self.train_progress_bar.reset(convert_inf(self.total_train_batches))
        self.train_progress_bar.initial = 0
        data = data_of(trainer, self)
        passes = data.epochs_per_outer_epoch
        outer_epoch, epoch = data.outer_epoch_of(trainer.current_epoch), trainer.current_epoch % passes + 1
        outer_epochs = (trainer.max_epochs or 0) // passes
        of_pass = f", pass {epoch} of {passes}" if passes > 1 else ""
        self.train_progress_bar.set_description(f"outer epoch {outer_epoch} of {outer_epochs}{of_pass}")
