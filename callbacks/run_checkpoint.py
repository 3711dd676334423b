"""Lightning's ModelCheckpoint, such that a fit can go on from each of its checkpoints."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.errors import InputError
from isara_pl.run.trainer import is_cut, is_trial

PATHS = ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path")  # of ModelCheckpoint's state


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, whose last checkpoint always holds the newest whole epoch, or what came after it.

    With `every_n_train_steps` or `train_time_interval`, Lightning writes none at the end of an epoch, and one that it
    writes after an epoch's last step, or before its end, has it skip that epoch's measuring and exporting when it goes
    on from there. Those are left out here, and so are those within accumulated gradients; the last checkpoint is
    written when the epoch is over. All options are Lightning's, but `save_on_train_epoch_end`, which must be true.

    A fit that ends within an epoch (`max_steps`, `max_time`, `should_stop`) leaves a last checkpoint that goes on with
    the rest of it, where Lightning's counts the epoch as done. It ends after a whole step of accumulated gradients.
    """

    _stops_after_step = False

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
        whole_step = _is_whole_step(trainer)
        if whole_step and batch_idx + 1 < trainer.num_training_batches:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._stop_after_whole_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning does."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop_after_whole_step(trainer)

    def _stop_after_whole_step(self, trainer: Trainer) -> None:
        """Put a stop off until gradients that are accumulated have made a step: no checkpoint holds them."""
        stops = trainer.should_stop or self._stops_after_step
        trainer.should_stop = stops and _is_whole_step(trainer)
        self._stops_after_step = stops and not trainer.should_stop

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where Lightning does, and the last checkpoint in any case."""
        if is_cut(trainer):
            self._save_within_epoch(trainer)
            return
        before = self._last_global_step_saved
        super().on_train_epoch_end(trainer, pl_module)
        saved_here = before != trainer.global_step == self._last_global_step_saved
        trained = trainer.fit_loop.epoch_loop.batch_progress.current.completed > 0
        if self.save_last and trained and not saved_here and not is_trial(trainer):
            self._save_as_last(trainer)

    def _save_as_last(self, trainer: Trainer) -> None:
        path = self.format_checkpoint_name(self._monitor_candidates(trainer), self.CHECKPOINT_NAME_LAST)
        self._save_checkpoint(trainer, path)
        self.last_model_path = path

    def _save_within_epoch(self, trainer: Trainer) -> None:
        """Save the last checkpoint such that a fit that goes on from it trains the rest of this epoch."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.current
        if not self.save_last or not _is_whole_step(trainer):  # a module may stop a fit after its callbacks
            return
        with _as_within_epoch(trainer):
            self._save_as_last(trainer)
        rank_zero_info(
            f"the fit ended within an epoch, after {batches.ready} of its {trainer.num_training_batches} batches; "
            "--ckpt_path last goes on with the others"
        )

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


def _is_whole_step(trainer: Trainer) -> bool:
    """Whether the newest batch made an optimiser step: the last of those whose gradients are accumulated."""
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return done % trainer.accumulate_grad_batches == 0 or done == trainer.num_training_batches


@contextmanager
def _as_within_epoch(trainer: Trainer) -> Iterator[None]:
    """Have Lightning's counts stand as after the newest batch, where it knows how to go on, not after the epoch."""
    loop, epochs = trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_progress
    # in these counts a checkpoint of `on_train_batch_end` differs from one of `on_train_epoch_end`
    ahead = [
        *((counts, "processed") for counts in (epochs.total, epochs.current)),
        *((counts, "completed") for counts in (loop.batch_progress.total, loop.batch_progress.current)),
        (loop, "_batches_that_stepped"),
    ]
    for counts, name in ahead:
        setattr(counts, name, getattr(counts, name) - 1)
    try:
        yield
    finally:
        for counts, name in ahead:
            setattr(counts, name, getattr(counts, name) + 1)


def _renamed(state: dict[str, Any], name: Callable[[str], str]) -> dict[str, Any]:
    paths = {key: name(state[key]) for key in PATHS if state.get(key)}
    best = {name(path): score for path, score in state.get("best_k_models", {}).items()}
    return {**state, **paths, "best_k_models": best}
