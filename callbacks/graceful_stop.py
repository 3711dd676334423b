"""Ctrl-C and SIGTERM end a fit between two batches, with everything on disk."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_only

from isara_pl.datamodule.growing import GrowthCallback


class GracefulStop(GrowthCallback):
    """Lets SIGINT (Ctrl-C) and SIGTERM end a fit between two batches; a second one ends it at once.

    A batch of candidates is judged and in the journal, a batch of training is in the checkpoint `last.ckpt`,
    and a measurement is finished. After that the fit ends as Lightning ends it after Ctrl-C. Under SLURM with
    automatic requeueing, the requeue signal waits for the end of the batch as well, and is then handled by
    Lightning's SLURMEnvironment, which writes a checkpoint of its own and requeues the job.

    Attributes:
        signal: The signal that ended the last fit; None where none did.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._requeue: signal.Signals | None = None
        self._requeue_asked = False
        self._before: dict[signal.Signals, Any] = {}

    # -- when signals are held back: from the first growth or batch to the end of the fit

    def on_growth_start(self, trainer: Trainer, outer_epoch: int) -> None:
        """Hold signals back from here on, and end here if one came."""
        self._hold_back(trainer)
        self._act(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold signals back from here on."""
        self._hold_back(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold signals back no longer: everything is on disk."""
        self._let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Hold signals back no longer. Lightning puts the handlers back, and ignores Ctrl-C until all is shut down."""
        self._before = {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hold signals back no longer; a fit that α ended in its first growth has no `on_train_end`."""
        self._let_go()

    # -- where a fit can end

    def on_growth_batch_end(self, trainer: Trainer, judged: int, accepted: int) -> None:
        """End here if a signal came: the batch is in the journal."""
        self._act(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End here if a signal came: the epoch before is in its checkpoint."""
        self._act(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End here if a signal came, with a checkpoint of this batch.

        Not within accumulated gradients, which no checkpoint holds, and not after an epoch's last batch: Lightning
        would skip its validation when it continues from there, and the end of the epoch has a checkpoint anyway. The
        same goes for any batch that a validation follows.
        """
        measured_next = batch_idx + 1 == trainer.num_training_batches or (
            trainer.val_check_batch and (batch_idx + 1) % trainer.val_check_batch == 0
        )
        if not measured_next and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._act(trainer, save=True)

    # -- what then happens

    def _act(self, trainer: Trainer, save: bool = False) -> None:
        """Do what a signal asked for, on all processes of a run alike."""
        strategy = trainer.strategy
        if self._requeue and strategy.reduce_boolean_decision(self._requeue_asked, all=False):
            self._requeue_asked = False
            self._before[self._requeue](self._requeue, None)
        if not strategy.reduce_boolean_decision(self.signal is not None, all=False):
            return
        checkpoint = trainer.checkpoint_callback
        if save and isinstance(checkpoint, ModelCheckpoint) and checkpoint.dirpath:
            trainer.save_checkpoint(Path(checkpoint.dirpath) / f"{checkpoint.CHECKPOINT_NAME_LAST}.ckpt")
        raise KeyboardInterrupt

    def _hold_back(self, trainer: Trainer) -> None:
        # Python lets only the main thread set handlers
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self.signal, self._requeue, self._requeue_asked = None, None, False
        environment = trainer._accelerator_connector.cluster_environment  # where Lightning's own connector looks
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._requeue = environment.requeue_signal
        # one that is ignored, as Ctrl-C is in the background of a script, stays so; None: not set from Python
        stops = {
            number
            for number in (signal.SIGINT, signal.SIGTERM)
            if number != self._requeue and signal.getsignal(number) not in (signal.SIG_IGN, None)
        }
        self._before = {number: signal.signal(number, self._asked_to_stop) for number in stops}
        if self._requeue:
            self._before[self._requeue] = signal.signal(self._requeue, self._asked_to_requeue)

    def _let_go(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        _tell(f"{self.signal.name}: finishing the current batch and writing it to disk; again to stop at once")

    def _asked_to_requeue(self, number: int, frame: FrameType | None) -> None:
        self._requeue_asked = True
        _tell(f"{signal.Signals(number).name}: the job is requeued after the current batch")


def _tell(line: str) -> None:
    """Write to the terminal from within a signal's handler, which may have interrupted a print."""
    if getattr(rank_zero_only, "rank", 0):  # set by Lightning
        return
    try:
        print(line, file=sys.stderr, flush=True)  # above rich's bars, where there are any
    except RuntimeError:  # it interrupted one to the same stream
        os.write(2, f"{line}\n".encode())
