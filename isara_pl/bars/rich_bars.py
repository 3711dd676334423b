"""The lines of running stages as rich bars."""

import sys
from collections.abc import Callable, Sequence

from lightning.pytorch.callbacks import RichProgressBar
from rich.console import RenderableType
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from isara_pl.bars.running import Line, count, duration


class RichBars:
    """Shows lines below the bars of Lightning's RichProgressBar, in its theme.

    A terminal has one live display at a time, and that is Lightning's: the lines are shown as a part of it.

    Args:
        bar: Lightning's progress bar.
        start: Lets it begin its display, which otherwise begins with the training or the validation.
    """

    def __init__(self, bar: RichProgressBar, start: Callable[[], None]) -> None:
        self._bar = bar
        self._start = start
        self._shown: list[RenderableType] = []
        self._joined: Progress | None = None

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines."""
        self._shown = [self._table(lines)] if lines else []
        if lines and (self._bar.progress is None or not self._bar.progress.live.is_started):
            self._start()
        progress = self._bar.progress
        if progress is None:
            return
        if progress is not self._joined:
            self._joined, theirs = progress, progress.get_renderables
            # mypy: what a subclass would override; Lightning makes the object, so there can be none
            progress.get_renderables = lambda: [*theirs(), *self._shown]  # type: ignore[method-assign]
        progress.refresh()

    def write(self, text: str) -> None:
        """Write to stderr: what is written there while a display is live, rich shows above it."""
        sys.stderr.write(text)

    def _table(self, lines: Sequence[Line]) -> Table:
        theme = self._bar.theme
        # the bars alone get narrower where the terminal is narrow
        columns = [Column(no_wrap=True), Column(), *(Column(no_wrap=True) for _ in range(3))]
        table = Table.grid(*columns, padding=(0, 1), pad_edge=False)
        for line in lines:
            bar = ProgressBar(
                total=line.total,
                completed=line.done,
                width=40,
                pulse=line.total is None,
                complete_style=theme.progress_bar,
                finished_style=theme.progress_bar_finished,
                pulse_style=theme.progress_bar_pulse,
            )
            table.add_row(
                Text(line.name, style=theme.description),
                bar,
                Text(count(line), style=theme.batch_progress),
                Text(f"{duration(line.seconds)} • {duration(line.seconds_left) or '-:--:--'}", style=theme.time),
                Text(line.note, style=theme.metrics),
            )
        return table
