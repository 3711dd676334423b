"""The stages that are running: bars below the trainer's own, or lines in the log."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning_utilities.core import rank_zero
from tqdm.notebook import tqdm_notebook

from isara_pl.callbacks.evaluation import data_of
from isara_pl.datamodule.growing import GrowthCallback
from isara_pl.results.metrics import outer_epoch_name
from isara_pl.run.stages import Stage, StageListener, listen, unlisten

TICK = 0.5  # seconds after which bars are drawn anew
BETWEEN_LOGS = 15.0  # seconds
MOMENT = 0.5  # seconds from which on a stage is shown: a shorter one would only flicker
SHOWN_BY_LIGHTNING = ("training", "validation")
TEXTS = ("questions", "answers")  # the stages in which a growth generates its candidates' texts


class StageProgress(GrowthCallback):
    """Shows generation, embedding, filtering, teaching and evaluation below the trainer's own progress bar.

    A growth has a bar for its candidates, with those accepted so far and the time that is left of it, and each stage
    one for its items, with the tokens that it generates per second (in the first process, where there are several).
    Where the output is neither a terminal nor a notebook with ipywidgets, and beside any bar but Lightning's
    TQDMProgressBar, a line is logged every 15 seconds instead, and without any bar (`enable_progress_bar: false`) lines
    of training and validation too, which have Lightning's own bars otherwise.
    """

    def __init__(self) -> None:
        self._watch: StageWatch | None = None
        self._shown = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to show what runs."""
        self._end()
        bar = trainer.progress_bar_callback
        if not trainer.is_global_zero:
            return
        for handler in [*_terminal_handlers()]:
            self._shown.callback(handler.setStream, handler.setStream(_AboveBars()))
        has_bar = bar is not None and not getattr(bar, "is_disabled", False)
        drawn = has_bar and isinstance(bar, TQDMProgressBar) and can_draw()
        by_lightning = SHOWN_BY_LIGHTNING if has_bar else ()
        show, seconds = (_Bars().show, TICK) if drawn else (_log, BETWEEN_LOGS)
        self._watch = StageWatch(show, seconds, by_lightning)
        self._watch.start()
        self._shown.callback(self._watch.stop)

    def on_growth_start(self, trainer: Trainer, outer_epoch: int) -> None:
        """Take over what an earlier process has grown of it."""
        pool = data_of(trainer, self).pool
        if self._watch and pool:
            judged, accepted = len(pool.judged(outer_epoch)), len(pool.accepted(outer_epoch))
            self._watch.growing = Growing(judged, accepted, trainer.world_size)

    def on_growth_batch_end(self, trainer: Trainer, judged: int, accepted: int) -> None:
        """Show the new count."""
        if self._watch:
            self._watch.growing.accepted, self._watch.growing.texts = accepted, 0

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show nothing more."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Show nothing more; Lightning tears nothing down after an error."""
        self._end()

    def _end(self) -> None:
        self._shown.close()
        self._watch = None


# -- what is said


@dataclass(frozen=True)
class Line:
    """What is said of a running stage; None stands for what is not known."""

    name: str
    done: int
    total: int | None
    seconds: float
    seconds_left: float | None
    note: str


@dataclass
class Growing:
    """How far a growth is, beside what its stage counts."""

    judged_before: int = 0  # candidates of the outer epoch that were judged before it began
    accepted: int = 0  # candidates of the outer epoch that were accepted so far
    processes: int = 1  # that split each batch
    texts: int = 0  # questions and answers that this process has generated for the batch that is not judged yet


def running_lines(running: Mapping[Stage, float], growing: Growing, now: float) -> list[Line]:
    """Give a line for each running stage, by the times at which they began; the innermost comes last.

    A growth has the candidates judged and accepted, and the time that is left of all of it, as every candidate is two
    texts to generate; any other stage its items and, where it generates, the generated tokens per second.
    """
    lines: list[Line] = []
    for stage, since in running.items():
        name, seconds, done, total = stage.name, now - since, stage.done, stage.total
        work: float = done
        left: float | None = None if total is None else total - done
        note = f"{stage.generated_tokens / seconds:,.0f} tokens/s" if stage.generated_tokens and seconds else ""
        if name == "growth" and total is not None:
            texts = growing.texts + sum(other.done for other in running if other.name in TEXTS)
            work = 2 * done / growing.processes + texts
            left = 2 * (total - done) / growing.processes - texts
            done, total = growing.judged_before + done, growing.judged_before + total
            name, note = "candidates", f"{growing.accepted} accepted"
        if not lines:
            name = f"{outer_epoch_name(stage.outer_epoch)}: {name}"
        seconds_left = None if left is None or not work else seconds / work * max(left, 0.0)
        lines.append(Line(name, done, total, seconds, seconds_left, note))
    return lines


def log_line(lines: Sequence[Line]) -> str:
    """Give all lines, of which there is at least one, as one for a log.

    Example:
        >>> growth = Line("outer epoch 2: candidates", 128, 512, 30, 90, "101 accepted")
        >>> log_line([growth, Line("answers", 37, 64, 5, 4, "1,240 tokens/s")])
        'outer epoch 2: candidates 128/512, 101 accepted; answers 37/64, 1,240 tokens/s; 0:01:30 left'
    """
    parts = []
    for line in lines:
        count = f"{line.done}" if line.total is None else f"{line.done}/{line.total}"
        parts.append(f"{line.name} {count}" + (f", {line.note}" if line.note else ""))
    if lines[0].seconds_left is not None:
        parts.append(f"{timedelta(seconds=int(lines[0].seconds_left))} left")
    return "; ".join(parts)


# -- when it is said


class StageWatch(StageListener):
    """Has the running stages shown, from a thread of its own: those that count nothing for a while go on as well.

    What shows lines does so in place of those before, and is given none where nothing runs.
    """

    def __init__(
        self, show: Callable[[Sequence[Line]], None], seconds: float, shown_elsewhere: Sequence[str] = ()
    ) -> None:
        self.growing = Growing()
        self._show, self._seconds, self._shown_elsewhere = show, seconds, shown_elsewhere
        self._running: dict[Stage, float] = {}  # when each began
        self._shown: list[Line] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stage-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        listen(self)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; nothing of this stays where it was shown."""
        unlisten(self)
        self._over.set()
        self._thread.join()
        self._clear()

    def on_stage_start(self, stage: Stage) -> None:
        """Watch a stage, unless another bar shows it."""
        if stage.name not in self._shown_elsewhere:
            with self._lock:
                self._running[stage] = time.perf_counter()

    def on_stage_end(self, stage: Stage) -> None:
        """Forget a stage."""
        with self._lock:
            self._running.pop(stage, None)
            if stage.name in TEXTS:
                self.growing.texts += stage.done
            if not self._running:
                self._clear()

    def draw(self) -> None:
        """Show what is running now."""
        with self._lock:
            now = time.perf_counter()
            running = {stage: since for stage, since in self._running.items() if now - since >= MOMENT}
            if self._running:
                lines = running_lines(running, self.growing, now)
                # a line stays until another takes its place, since the lines below would jump
                self._shown = [*lines, *self._shown[len(lines) :]]
                self._show(self._shown)

    def _look(self) -> None:
        while not self._over.wait(self._seconds):
            self.draw()

    def _clear(self) -> None:
        if self._shown:
            self._shown = []
            self._show([])


# -- where it is said


def can_draw() -> bool:
    """Whether bars can be drawn and wiped away: on a terminal, and in a notebook where ipywidgets is installed."""
    return sys.stdout.isatty() or issubclass(Tqdm, tqdm_notebook)


class _Bars:
    """Bars below Lightning's own, in their style."""

    def __init__(self) -> None:
        self._bars: list[Tqdm] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines; bars of which there are no lines are wiped away."""
        while len(self._bars) > len(lines):
            bar = self._bars.pop()
            bar.total = None  # a notebook would keep one that is not full, in red
            bar.close()
        while len(self._bars) < len(lines):
            # without a position of their own they take the next free ones
            self._bars.append(Tqdm(leave=False, dynamic_ncols=True, file=sys.stdout, bar_format="{desc}"))
        for bar, line in zip(self._bars, lines, strict=True):
            left = "?" if line.seconds_left is None else Tqdm.format_interval(line.seconds_left)
            said = f"{Tqdm.format_interval(line.seconds)}<{left}" + (f", {line.note}" if line.note else "")
            bar.desc, bar.bar_format = f"{line.name}: ", "{l_bar}{bar}| {n_fmt}/{total_fmt} [" + said + "]"
            if bar.total != line.total:
                bar.reset(line.total)  # which a notebook's bar must be told
            bar.n, bar.total = line.done, line.total
            bar.refresh()


def _log(lines: Sequence[Line]) -> None:
    if lines:
        rank_zero.rank_zero_info(log_line(lines))


class _AboveBars:
    """Stderr, such that what is written stands above the bars of a terminal and not in the middle of them."""

    def write(self, text: str) -> None:
        with Tqdm.external_write_mode(file=sys.stderr):
            sys.stderr.write(text)  # rich puts a stream of its own here, which does the same for its bars

    def flush(self) -> None:
        sys.stderr.flush()


def _terminal_handlers() -> Iterator[logging.StreamHandler[Any]]:
    """Give what writes Lightning's log to the terminal, if stderr is one."""
    logger: logging.Logger | None = rank_zero.log
    while logger is not None and sys.stderr.isatty():
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stderr, sys.__stderr__):
                yield handler
        logger = logger.parent if logger.propagate else None
