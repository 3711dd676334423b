"""An outer epoch at a glance, in the log."""

import random
import shutil

from lightning.pytorch import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.callbacks.alpha_stopping import alpha_of
from isara_pl.callbacks.evaluation import data_of
from isara_pl.callbacks.outer_epoch_table import measured_figures
from isara_pl.datamodule.growing import GrowthCallback, taken_by_filters
from isara_pl.growth.outer_epoch import Growth
from isara_pl.report.contents import GrownOuterEpoch
from isara_pl.report.terminal import WIDEST, format_summary
from isara_pl.results.answers import Answered, read_answers
from isara_pl.results.metrics import FILE, Row, read_rows
from isara_pl.run.folder import run_folder
from isara_pl.run.randomness import derive_seed
from isara_pl.run.trainer import finished_outer_epoch

SAMPLES = 2


class OuterEpochSummary(GrowthCallback):
    """Logs what each outer epoch came to: novelty against α, what each filter took, samples, figures.

    The samples are 2 of those accepted, drawn by the run's seed. With HeldOutAnswers before it, a held-out question
    follows with its answers: that whose given answer training has made least likely, where that is known. The figures
    are those of the pretrained model and of the outer epoch before, as they stand in `metrics.csv`, and of this one. An
    outer epoch that the α rule ended has none. The lines go where Lightning's own go, and never more than 25 of them.
    """

    def __init__(self) -> None:
        self._growth: Growth | None = None
        self._generated = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse another data module, and forget an earlier run."""
        data_of(trainer, self)
        self._growth = None

    def on_growth_start(self, trainer: Trainer, outer_epoch: int) -> None:
        """Nothing was generated yet."""
        self._generated = False

    def on_growth_batch_end(self, trainer: Trainer, judged: int, accepted: int) -> None:
        """Remember that this process generated."""
        self._generated = True

    def on_growth_end(self, trainer: Trainer, growth: Growth) -> None:
        """Wait for what training on it brings."""
        self._growth = growth

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log an outer epoch after its last epoch: it was measured before."""
        if finished_outer_epoch(trainer, data_of(trainer, self).epochs_per_outer_epoch):
            self._log(trainer, measured_figures(trainer, pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log an outer epoch that was grown, and not trained on to its end: mostly, the α rule ended it.

        A resume that finds it grown and ends it again says nothing.
        """
        if self._generated:
            self._log(trainer, {})

    def _log(self, trainer: Trainer, measured: Row) -> None:
        growth, self._growth = self._growth, None
        data = data_of(trainer, self)
        if growth is None or data.pool is None or not trainer.is_global_zero:
            return
        accepted = data.pool.accepted(growth.outer_epoch)
        draw = random.Random(derive_seed(data.seed, "summary", growth.outer_epoch))
        alpha = alpha_of(trainer)
        text = format_summary(
            GrownOuterEpoch(
                outer_epoch=growth.outer_epoch,
                candidates=growth.candidates,
                accepted=growth.accepted,
                taken=taken_by_filters(trainer, growth),
                trained=alpha is None or growth.novelty is None or growth.novelty >= alpha,
            ),
            alpha,
            sorted(draw.sample(accepted, min(SAMPLES, len(accepted))), key=lambda sample: sample.id),
            _answered(trainer, growth.outer_epoch) if measured else None,
            _beside(trainer, growth.outer_epoch, measured),
            shutil.get_terminal_size((WIDEST, 0)).columns,
        )
        rank_zero_info(text)


def _answered(trainer: Trainer, outer_epoch: int) -> Answered | None:
    """Give the held-out question to show."""
    run_dir = run_folder(trainer)
    answers = read_answers(run_dir, outer_epoch) if run_dir is not None else []
    return answers[0] if answers else None


def _beside(trainer: Trainer, outer_epoch: int, measured: Row) -> dict[int, Row]:
    """Give an outer epoch's figures, after those of the pretrained model and of the outer epoch before."""
    run_dir = run_folder(trainer)
    if not measured or run_dir is None:
        return {outer_epoch: measured} if measured else {}
    rows = read_rows(run_dir / FILE)
    before = {other: rows[other] for other in dict.fromkeys((0, outer_epoch - 1)) if other in rows}
    return {**before, outer_epoch: measured}
