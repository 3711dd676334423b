"""The figures of a run, one row an outer epoch."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from isara_pl.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.growth.outer_epoch import Growth
from isara_pl.progress import finished_outer_epoch
from isara_pl.report.metrics import FILE, OF_GROWTH, OF_TRAINING, Row, read_rows, rows_text
from isara_pl.run_folder import run_folder
from isara_pl.whole_file import write_whole


class OuterEpochTable(Callback):
    """Writes `metrics.csv` to the run folder: one row for the pretrained model and each outer epoch.

    Columns: `outer_epoch` (0 is the pretrained model), `answer_nll`, `mc1`, `mc2` and every other figure
    that was measured after training, `novelty`, `candidates`, `accepted`, `trained_on` (samples; 0 for an outer epoch
    that the α rule ended) and `seconds` (growing, training and measuring). A figure that does not
    exist is empty. A resumed run keeps the rows that are there.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self._since = time.perf_counter()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the rows that an earlier process wrote."""
        if not isinstance(_data(trainer), IsaraDataModule):
            raise InputError("OuterEpochTable needs IsaraDataModule")
        run_dir = run_folder(trainer)
        self.rows = {} if run_dir is None else read_rows(run_dir / FILE)
        self._since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figures of a validation outside of `fit`: of the pretrained model, or of a checkpoint."""
        if trainer.state.fn == "validate":
            self._measured(trainer, _data(trainer).trained_outer_epochs)

    def on_growth_end(self, trainer: Trainer, growth: Growth) -> None:
        """Write what a growth gave."""
        row = self.rows.setdefault(growth.outer_epoch, {"outer_epoch": growth.outer_epoch})
        row.update(candidates=growth.candidates, accepted=growth.accepted)
        row.setdefault("trained_on", 0)
        row.setdefault("seconds", growth.seconds)
        if growth.novelty is not None:
            row["novelty"] = growth.novelty
        self._write(trainer)
        self._since = time.perf_counter() - growth.seconds

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figures after the last epoch of an outer epoch, unless nothing was trained."""
        data = _data(trainer)
        if not finished_outer_epoch(trainer, data.epochs_per_outer_epoch):
            return
        outer_epoch = data.outer_epoch_of(trainer.current_epoch)
        row = self.rows.setdefault(outer_epoch, {"outer_epoch": outer_epoch})
        row["trained_on"] = len(data.training_samples(outer_epoch))
        self._measured(trainer, outer_epoch)

    def _measured(self, trainer: Trainer, outer_epoch: int) -> None:
        row = self.rows.setdefault(outer_epoch, {"outer_epoch": outer_epoch})
        row.update({name: float(value) for name, value in trainer.callback_metrics.items() if name not in OF_TRAINING})
        if trainer.state.fn == "fit" or "seconds" not in row:
            row["seconds"] = time.perf_counter() - self._since
        self._since = time.perf_counter()
        self._write(trainer)
        # with the outer epoch beside the figures, which Lightning logs by step; SampleLogger logs what growing gave
        figures = {name: float(value) for name, value in row.items() if name not in OF_GROWTH}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)

    def _write(self, trainer: Trainer) -> None:
        run_dir = run_folder(trainer)
        if run_dir is not None:
            write_whole(run_dir / FILE, rows_text(self.rows))


def _data(trainer: Trainer) -> Any:
    return trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it
