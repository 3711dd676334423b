"""Looks at the running stages twice a second, and has them shown."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from isara_pl.bars.running import TEXTS, Growing, Line, Opened, log_line, running_lines
from isara_pl.run.stages import Stage, listen, unlisten

TICK = 0.5  # seconds between two looks
MOMENT = 0.5  # seconds from which on a stage is shown: a shorter one would only flicker
BETWEEN_LOGS = 30.0  # seconds
SHOWN_BY_LIGHTNING = ("training", "validation")


class Display(Protocol):
    """What shows the lines of running stages."""

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines in place of those before; none where nothing runs."""


class LogLines:
    """Shows lines in a log: a line now and then.

    Args:
        log: Writes a line into the log.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._last = time.perf_counter()

    def show(self, lines: Sequence[Line]) -> None:
        """Log these lines, unless others were a short while ago."""
        if lines and time.perf_counter() - self._last >= BETWEEN_LOGS:
            self._last = time.perf_counter()
            self._log(log_line(lines))


class StageWatch:
    """Has the running stages shown, from a thread of its own: those that count nothing for a while go on as well.

    Args:
        display: Shows them.

    Attributes:
        growing: How far the growth is, if there is one.
    """

    def __init__(self, display: Display) -> None:
        self.growing = Growing()
        self._display = display
        self._opened: list[Opened] = []
        self._shown: list[Line] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="stage-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        listen(self)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; nothing of this stays on the display."""
        unlisten(self)
        self._over.set()
        self._thread.join()
        self._clear()

    def on_stage_start(self, stage: Stage) -> None:
        """Watch a stage, unless Lightning has a bar for it."""
        if stage.name not in SHOWN_BY_LIGHTNING:
            with self._lock:
                self._opened.append(Opened(stage, time.perf_counter()))

    def on_stage_advance(self, stage: Stage) -> None:
        """Wait for the next look."""

    def on_stage_end(self, stage: Stage) -> None:
        """Forget a stage."""
        with self._lock:
            self._opened = [one for one in self._opened if one.stage is not stage]
            if stage.name in TEXTS:
                self.growing.texts += stage.done
                self.growing.texts_of_batch += stage.done
        if not self._opened:
            self._clear()

    def on_batch_judged(self, accepted: int) -> None:
        """Hear of a batch of candidates that was judged.

        Args:
            accepted: Candidates of the outer epoch that were accepted so far.
        """
        with self._lock:
            self.growing.accepted, self.growing.texts_of_batch = accepted, 0

    def draw(self) -> None:
        """Show what is running now."""
        with self._lock:
            now = time.perf_counter()
            lines = running_lines([one for one in self._opened if now - one.since >= MOMENT], self.growing, now)
            if self._opened:
                # a line stays until another takes its place, since the lines below would jump
                self._shown = [*lines, *self._shown[len(lines) :]]
                self._display.show(self._shown)

    def _look(self) -> None:
        while not self._over.wait(TICK):
            self.draw()

    def _clear(self) -> None:
        with self._lock:
            if self._shown:
                self._shown = []
                self._display.show([])
