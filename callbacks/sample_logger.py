"""What a growth gave, in Lightning's loggers."""

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.callbacks.alpha_stopping import alpha_of
from isara_pl.callbacks.evaluation import data_of
from isara_pl.callbacks.outer_epoch_table import measured_figures
from isara_pl.datamodule.growing import GrowthCallback, candidate_filters
from isara_pl.errors import InputError, first_line
from isara_pl.growth.outer_epoch import Growth
from isara_pl.growth.pool import SamplePool
from isara_pl.report.facts import shown
from isara_pl.report.sample_table import COLUMNS, drawn_rows, markdown
from isara_pl.results.metrics import FILE, LAST, MEASURED, read_rows
from isara_pl.run.conditions import described
from isara_pl.run.folder import run_folder
from isara_pl.run.trainer import finished_outer_epoch


class SampleLogger(GrowthCallback):
    """Logs what each growth gave, in all loggers of the trainer, and what the run depends on as hyperparameters.

    At the end of a growth, also of one that the α rule ends: `outer_epoch`, `novelty`, `candidates`, `accepted` and
    `rejected/<filter>`, in every logger. In TensorBoard and Weights & Biases also a table `samples` of accepted samples
    and rejected candidates, and the images `images/waterfall` (what each filter took), `images/novelty` (with α) and,
    after training, `images/figures`; images need matplotlib. The step is the number of training steps until then. A
    growth that stands in metrics.csv already when a fit begins was logged by the process that grew it, and is not
    logged again.

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
        filters = [type(one).__name__ for one in candidate_filters(trainer)]
        taken = {name: growth.rejected[name] for name in [*filters, *growth.rejected]}
        figures: dict[str, float] = {
            "outer_epoch": growth.outer_epoch,
            "candidates": growth.candidates,
            "accepted": growth.accepted,
            **{f"rejected/{name}": count for name, count in taken.items()},
        }
        if growth.novelty is not None:
            figures["novelty"] = growth.novelty
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)
            logger.save()
        self._log_table(trainer, pool, growth.outer_epoch)
        _log_image(
            trainer,
            "waterfall",
            lambda images: images.waterfall(growth.outer_epoch, growth.candidates, taken, growth.accepted),
        )
        novelties = _novelties(pool, growth.outer_epoch)
        _log_image(trainer, "novelty", lambda images: images.novelty(novelties, alpha_of(trainer)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the image of the figures after the last epoch of an outer epoch."""
        run_dir, data = run_folder(trainer), data_of(trainer, self)
        if run_dir is None or not finished_outer_epoch(trainer, data.epochs_per_outer_epoch):
            return
        rows = read_rows(run_dir / FILE)
        rows[data.measured_outer_epoch] = measured_figures(trainer, pl_module)
        others = ("outer_epoch", *LAST)
        found = dict.fromkeys(name for row in rows.values() for name in row if name not in others)
        names = sorted(found, key=lambda name: name not in MEASURED)  # the best known first
        if names:
            _log_image(trainer, "figures", lambda images: images.figures(rows, names))

    def _log_table(self, trainer: Trainer, pool: SamplePool, outer_epoch: int) -> None:
        if not self.samples or not _show_more(trainer):
            return
        rows = drawn_rows(pool, outer_epoch, self.samples, data_of(trainer, self).seed)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("samples", columns=[*COLUMNS], data=rows, step=trainer.global_step)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", markdown(rows), trainer.global_step)
                logger.save()


def _without_places(value: Any) -> Any:
    """Name files and folders by their last names: hyperparameters may leave this machine."""
    if isinstance(value, list):
        return [shown([one]) for one in value]
    return shown(value) if isinstance(value, str) else value


def _show_more(trainer: Trainer) -> bool:
    """Whether any logger shows tables and images; Lightning has no method for them that all of its loggers share."""
    return any(isinstance(logger, WandbLogger | TensorBoardLogger) for logger in trainer.loggers)


def _log_image(trainer: Trainer, name: str, draw: Callable[[ModuleType], Any]) -> None:
    images = _images() if _show_more(trainer) else None
    if images is None:
        return
    pixels = images.pixels(draw(images))
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"images/{name}", [pixels], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(f"images/{name}", pixels, trainer.global_step, dataformats="HWC")
            logger.save()


@cache
def _images() -> ModuleType | None:
    """Give what draws images; None where matplotlib is missing, which is said once."""
    try:
        from isara_pl.report import images
    except ImportError as error:
        rank_zero_info(f"no images in the loggers ({first_line(error)}): pip install 'isara_pl[loggers]'")
        return None
    return images


def _novelties(pool: SamplePool, outer_epoch: int) -> dict[int, float]:
    """Give the novelty of every outer epoch up to this one."""
    counts = {number: (len(pool.accepted(number)), len(pool.judged(number))) for number in range(1, outer_epoch + 1)}
    return {number: accepted / judged for number, (accepted, judged) in counts.items() if judged}
