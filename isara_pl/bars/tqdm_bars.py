"""The lines of running stages as tqdm bars."""

import sys
from collections.abc import Sequence

from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from isara_pl.bars.running import Line


class TqdmBars:
    """Shows lines as bars below Lightning's own, in their style."""

    def __init__(self) -> None:
        self._bars: list[Tqdm] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines; bars of which there are no lines are wiped away."""
        while len(self._bars) > len(lines):
            self._bars.pop().close()
        while len(self._bars) < len(lines):
            # without a position of their own they take the next free ones
            self._bars.append(Tqdm(leave=False, dynamic_ncols=True, file=sys.stdout, bar_format="{desc}"))
        for bar, line in zip(self._bars, lines, strict=True):
            left = "?" if line.seconds_left is None else Tqdm.format_interval(line.seconds_left)
            said = f"{Tqdm.format_interval(line.seconds)}<{left}" + (f", {line.note}" if line.note else "")
            bar.desc, bar.n, bar.total = f"{line.name}: ", line.done, line.total
            bar.bar_format = "{l_bar}{bar}| {n_fmt}/{total_fmt} [" + said + "]"
            bar.refresh()

    def write(self, text: str) -> None:
        """Write to stderr, above all bars."""
        with Tqdm.external_write_mode(file=sys.stderr):
            sys.stderr.write(text)
