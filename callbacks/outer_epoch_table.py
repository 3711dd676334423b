"""The figures of a run, one row an outer epoch."""

import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from isara_pl.callbacks.evaluation import data_of
from isara_pl.datamodule.growing import GrowthCallback
from isara_pl.datamodule.pooled_data import outer_epoch_of_weights, weights_of
from isara_pl.growth.outer_epoch import Growth
from isara_pl.results.metrics import FILE, OF_GROWTH, OF_TRAINING, Row, read_rows, read_weights, rows_text
from isara_pl.run.files import write_whole
from isara_pl.run.folder import run_folder
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.trainer import callbacks_of, finished_outer_epoch


class OuterEpochTable(GrowthCallback):
    """Writes `metrics.csv` to the run folder: one row for the pretrained model and each outer epoch.

    Columns: `outer_epoch` (0 is the pretrained model), `answer_nll`, `mc1`, `mc2` and every other figure
    that was measured after training, `novelty`, `candidates`, `accepted`, `data_scaling` (all samples so far ÷ seeds),
    `trained_on` (samples; 0 for an outer epoch that the α rule ended), `seconds` (growing, training and measuring) and
    `weights` (a hash of the adapter's that the figures were measured of). A figure that does not exist is empty, and so
    are those of an outer epoch after whose last training step nothing was measured. Figures of any other weights, such
    as those within an outer epoch or of another run, are logged, and stand in no row. A resumed run keeps the rows that
    are there.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.weights: dict[int, str] = {}
        self._before: dict[str, Tensor] = {}
        self._figures: Row = {}
        self._figures_of = ""  # the name of the weights that they were measured of
        self._since = time.perf_counter()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the rows that an earlier process wrote."""
        data_of(trainer, self)  # refuses another one now
        run_dir = run_folder(trainer)
        self.rows = {} if run_dir is None else read_rows(run_dir / FILE)
        self.weights = {} if run_dir is None else read_weights(run_dir / FILE)
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was logged before."""
        self._before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures; write them outside of `fit`, where they are the pretrained model's or a checkpoint's."""
        if trainer.sanity_checking:
            return
        # `callback_metrics` keeps those of earlier validations as well, and has a new tensor for each that is logged
        figures = {
            name: value for name, value in trainer.callback_metrics.items() if value is not self._before.get(name)
        }
        self._figures, self._figures_of = _named(figures), weights_of(pl_module)
        if trainer.state.fn != "validate":
            return
        outer_epoch = outer_epoch_of_weights(trainer, pl_module, data_of(trainer, self))
        if outer_epoch is None:
            rank_zero_warn(
                f"these weights ({self._figures_of}) stand at the end of none of this run's outer epochs, so that "
                f"their figures are shown, and kept neither in {FILE} nor in evaluation/"
            )
        else:
            self._write_figures(trainer, outer_epoch)

    def on_growth_end(self, trainer: Trainer, growth: Growth) -> None:
        """Write what a growth gave."""
        row = self.rows.setdefault(growth.outer_epoch, {"outer_epoch": growth.outer_epoch})
        row.update(candidates=growth.candidates, accepted=growth.accepted)
        row.setdefault("seconds", growth.seconds)
        if growth.novelty is not None:
            row["novelty"] = growth.novelty
        pool = data_of(trainer, self).pool
        if pool is not None:
            row["data_scaling"] = pool.scaling(growth.outer_epoch)
        self._write(trainer)
        self._since = time.perf_counter() - growth.seconds

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figures after the last epoch of an outer epoch, unless nothing was trained."""
        data = data_of(trainer, self)
        if not finished_outer_epoch(trainer, data.epochs_per_outer_epoch):
            return
        outer_epoch = data.outer_epoch_of(trainer.current_epoch)
        grown = {name: value for name, value in self.rows.get(outer_epoch, {}).items() if name in OF_GROWTH}
        self.rows[outer_epoch] = {"outer_epoch": outer_epoch, **grown}
        self.rows[outer_epoch]["trained_on"] = len(data.training_samples(outer_epoch))
        self.figures(trainer, pl_module)
        self._write_figures(trainer, outer_epoch)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write that an outer epoch was not trained on, where the α rule ended it."""
        exhausted = data_of(trainer, self).exhausted_outer_epoch
        if exhausted in self.rows:
            self.rows[exhausted]["trained_on"] = 0
            self._write(trainer)

    def figures(self, trainer: Trainer, pl_module: LightningModule) -> Row:
        """Give the figures of the module's weights in `on_train_epoch_end`.

        Those of the last validation, unless the weights have changed since, and what was logged by epoch.
        """
        weights = weights_of(pl_module)
        measured = self._figures if weights == self._figures_of else {}
        untyped: Any = trainer  # what this epoch logged is not told apart otherwise
        self._figures = {**measured, **_named(untyped._results.metrics(on_step=False)["callback"])}
        self._figures_of = weights
        return self._figures

    def _write_figures(self, trainer: Trainer, outer_epoch: int) -> None:
        row = self.rows.setdefault(outer_epoch, {"outer_epoch": outer_epoch})
        row.update(self._figures)
        self.weights[outer_epoch] = self._figures_of
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
            write_whole(run_dir / FILE, rows_text(self.rows, self.weights))


def measured_figures(trainer: Trainer, pl_module: LightningModule) -> Row:
    """Give the figures of the trainer's OuterEpochTable in `on_train_epoch_end`; none where it has no such callback."""
    tables = [callback for callback in callbacks_of(trainer) if isinstance(callback, OuterEpochTable)]
    return tables[0].figures(trainer, pl_module) if tables else {}


def _named(figures: Mapping[str, Tensor]) -> Row:
    return {name: float(value) for name, value in figures.items() if name not in OF_TRAINING}
