"""What a growth gave, in Lightning's loggers."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from isara_pl.callbacks.alpha_stopping import alpha_of
from isara_pl.callbacks.evaluation import data_of
from isara_pl.datamodule.growing import GrowthCallback, candidate_filters, taken_by_filters
from isara_pl.errors import InputError
from isara_pl.growth.outer_epoch import Growth
from isara_pl.growth.pool import SamplePool
from isara_pl.report.findings import shown
from isara_pl.report.tables import COLUMNS, drawn_rows, markdown
from isara_pl.results.metrics import FILE, read_rows
from isara_pl.run.conditions import described
from isara_pl.run.folder import run_folder


class SampleLogger(GrowthCallback):
    """Logs what each growth gave, in all loggers of the trainer, and what the run depends on as hyperparameters.

    At the end of a growth, also of one that the α rule ends: `outer_epoch`, `novelty`, `candidates`, `accepted` and
    `rejected/<filter>`, in every logger. In TensorBoard and Weights & Biases also a table `samples` of accepted samples
    and rejected candidates. The step is the number of training steps until then. A growth that stands in metrics.csv
    already when a fit begins was logged by the process that grew it, and is not logged again.

    Args:
        samples: Most accepted samples, and most rejected candidates, in a table; they are drawn by the run's seed. 0
            logs no tables.

    Raises:
        InputError: If samples is below 0.
    """

    def __init__(self, samples: int = 20) -> None:
        if samples < 0:
            raise InputError(f"sample_logger.samples is {samples}; allowed: at least 0")
        self.samples = samples
        self._before: dict[int, float] = {}  # candidates by outer epoch
        self._described = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log the hyperparameters once, and see what was logged before."""
        run_dir, data = run_folder(trainer), data_of(trainer, self)
        if run_dir is None:
            return
        rows = read_rows(run_dir / FILE)
        self._before = {number: row["candidates"] for number, row in rows.items() if "candidates" in row}
        if not self._described:  # `fit` measures the pretrained model first, with the same loggers
            of_module: Callable[[], dict[str, Any]] = getattr(pl_module, "conditions", dict)
            options = {
                **data.conditions(),
                **of_module(),
                "data.outer_epochs": data.outer_epochs,
                "alpha_stopping.alpha": alpha_of(trainer),
                "filters": described(candidate_filters(trainer)),
            }
            for logger in trainer.loggers:
                logger.log_hyperparams({name: _without_places(value) for name, value in options.items()})
            self._described = True

    def on_growth_end(self, trainer: Trainer, growth: Growth) -> None:
        """Log what a growth gave."""
        pool = data_of(trainer, self).pool
        if run_folder(trainer) is None or pool is None or self._before.get(growth.outer_epoch) == growth.candidates:
            return
        figures: dict[str, float] = {
            "outer_epoch": growth.outer_epoch,
            "candidates": growth.candidates,
            "accepted": growth.accepted,
            "data_scaling": pool.scaling(growth.outer_epoch),
            **{f"rejected/{name}": count for name, count in taken_by_filters(trainer, growth).items()},
        }
        if growth.novelty is not None:
            figures["novelty"] = growth.novelty
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)
            logger.save()
        self._log_table(trainer, pool, growth.outer_epoch)

    def _log_table(self, trainer: Trainer, pool: SamplePool, outer_epoch: int) -> None:
        # Lightning has no method for tables that all of its loggers share
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger | TensorBoardLogger)]
        if not self.samples or not loggers:
            return
        rows = drawn_rows(pool, outer_epoch, self.samples, data_of(trainer, self).seed)
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("samples", columns=[*COLUMNS], data=rows, step=trainer.global_step)
            else:
                logger.experiment.add_text("samples", markdown(rows), trainer.global_step)
                logger.save()


def _without_places(value: Any) -> Any:
    """Name files and folders by their last names: hyperparameters may leave this machine."""
    if isinstance(value, list):
        return [shown([one]) for one in value]
    return shown(value) if isinstance(value, str) else value
