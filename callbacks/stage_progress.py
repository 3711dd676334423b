"""Progress bars for growing and measuring."""

import sys
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning_utilities.core import rank_zero

from isara_pl.bars.logged_above import logged_above
from isara_pl.bars.running import Growing
from isara_pl.bars.stage_watch import LogLines, StageWatch
from isara_pl.bars.tqdm_bars import TqdmBars
from isara_pl.callbacks.evaluation import data_of


class StageProgress(Callback):
    """Shows generation, embedding, filtering, teaching and evaluation, in the style of the trainer's own progress bar.

    Below Lightning's bars, rich or tqdm, a growth has one for its candidates, with those accepted so far and the time
    that is left of it, and each stage one for its items, with the tokens that it generates per second (in the first
    process, where there are several). Where the output is no terminal, a line is logged every 30 seconds instead.
    Without a progress bar (`enable_progress_bar: false`) nothing is shown. Training and validation have Lightning's
    own bars.
    """

    def __init__(self) -> None:
        self._watch: StageWatch | None = None
        self._running = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to show what runs, if the trainer shows its progress."""
        self._end()
        bar: Any = trainer.progress_bar_callback
        if bar is None or not trainer.is_global_zero or (_is_known(bar) and bar.is_disabled):
            return
        display: Any = LogLines(rank_zero.rank_zero_info)
        if isinstance(bar, TQDMProgressBar) and sys.stdout.isatty():
            display = TqdmBars()
        elif isinstance(bar, RichProgressBar) and _is_terminal():
            from isara_pl.bars.rich_bars import RichBars  # only where Lightning uses rich, it is installed

            display = RichBars(bar, start=lambda: bar.on_train_start(trainer, pl_module))
        if not isinstance(display, LogLines):
            self._running.enter_context(logged_above(rank_zero.log, display.write))
        self._watch = StageWatch(display)
        self._watch.start()
        self._running.callback(self._watch.stop)

    def on_growth_start(self, trainer: Trainer, outer_epoch: int) -> None:
        """Take over what an earlier process has grown of it."""
        pool = data_of(trainer, self).pool
        if self._watch and pool:
            judged, accepted = len(pool.judged(outer_epoch)), len(pool.accepted(outer_epoch))
            self._watch.growing = Growing(judged, accepted, trainer.world_size)

    def on_growth_batch_end(self, trainer: Trainer, judged: int, accepted: int) -> None:
        """Show the new count."""
        if self._watch:
            self._watch.on_batch_judged(accepted)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show nothing more."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Show nothing more; Lightning tears nothing down after an error."""
        self._end()

    def _end(self) -> None:
        self._running.close()
        self._watch = None


def _is_known(bar: Any) -> bool:
    return isinstance(bar, RichProgressBar | TQDMProgressBar)


def _is_terminal() -> bool:
    """Whether rich, which Lightning's bar has at hand then, writes to a terminal that can move its cursor."""
    from rich import get_console

    return get_console().is_terminal and not get_console().is_dumb_terminal
