"""Lightning's ModelCheckpoint, such that a fit can go on from each of its checkpoints."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from isara_pl.errors import InputError

PATHS = ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path")  # of ModelCheckpoint's state


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose last checkpoint always holds the newest whole epoch, or what came after it.

    With `every_n_train_steps` or `train_time_interval`, Lightning writes none at the end of an epoch, and one that it
    writes after an epoch's last step, or before its end, has it skip that epoch's measuring and exporting when it goes
    on from there. Those are left out here, and so are those within accumulated gradients; the last checkpoint is
    written when the epoch is over. All options are Lightning's, but `save_on_train_epoch_end`, which must be true.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what could not be continued from."""
        if self._save_on_train_epoch_end is False:
            raise InputError(
                "checkpoint.save_on_train_epoch_end is false: a run that went on from a checkpoint of before the end "
                "of an epoch would lack its figures and its adapter. Use true"
            )
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where Lightning does, but for the last step of an epoch and within accumulated gradients."""
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole_step and batch_idx + 1 < trainer.num_training_batches:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning does, and the last checkpoint in any case."""
        before = self._last_global_step_saved
        super().on_train_epoch_end(trainer, pl_module)
        saved_here = before != trainer.global_step == self._last_global_step_saved
        trained = trainer.fit_loop.epoch_loop.batch_progress.current.completed > 0
        untyped: Any = trainer  # Lightning sets `fast_dev_run` without declaring it
        if self.save_last and trained and not saved_here and not untyped.fast_dev_run:
            path = self.format_checkpoint_name(self._monitor_candidates(trainer), self.CHECKPOINT_NAME_LAST)
            self._save_checkpoint(trainer, path)
            self.last_model_path = path

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save nothing: the last epoch has its checkpoint, and Lightning would write one of a trial run, too."""

    def state_dict(self) -> dict[str, Any]:
        """Give Lightning's state with the names of files in the folder in place of their paths: a run may be moved."""
        return _renamed(super().state_dict(), lambda path: os.path.relpath(path, self.dirpath or "."))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state, with paths in the folder where the run is now."""
        super().load_state_dict(_renamed(state_dict, lambda name: os.path.normpath(Path(self.dirpath or ".") / name)))

    def _should_save_on_train_epoch_end(self, trainer: Trainer) -> bool:
        return True


def _renamed(state: dict[str, Any], name: Callable[[str], str]) -> dict[str, Any]:
    paths = {key: name(state[key]) for key in PATHS if state.get(key)}
    best = {name(path): score for path, score in state.get("best_k_models", {}).items()}
    return {**state, **paths, "best_k_models": best}
