"""Figures of a run as images, for loggers that take them; needs matplotlib.

Names of figures and filters are shown as they are: matplotlib's mathtext ($) and LaTeX are off. The user's own style is
off as well, so that equal runs give equal images.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ContextDecorator

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# told apart by every kind of colour blindness (Okabe and Ito)
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
MOST_PANELS = 24  # beyond that nobody looks
LONGEST_NAME = 32  # characters
LARGEST = 1e100  # near the end of float64, matplotlib's margins overflow


def _in_own_style() -> ContextDecorator:
    return style.context(["default", {"text.usetex": False, "text.parse_math": False}])


@_in_own_style()
def waterfall(outer_epoch: int, candidates: int, taken: Mapping[str, int], accepted: int) -> Figure:
    """Show what the filters took of an outer epoch's candidates, from all of them down to the accepted.

    Args:
        outer_epoch: Which one.
        candidates: How many were judged.
        taken: How many each filter took, in the filters' order.
        accepted: How many entered the pool.
    """
    names = ["candidates", *map(_short, taken), "accepted"]
    counts = [candidates, *taken.values(), accepted]
    left = [0, *(candidates - np.cumsum([*taken.values()], dtype=int)), 0]
    colours = [GREY, *(ORANGE for _ in taken), GREEN]
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(names)), layout="constrained")
    axes = figure.subplots()
    places = range(len(names))
    bars = axes.barh(places, counts, left=left, color=colours)
    axes.bar_label(bars, [f" {count:,}" for count in counts])
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(candidates, 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("candidates")
    axes.set_title(f"outer epoch {outer_epoch}: what each filter took")
    return _calm(figure)


@_in_own_style()
def novelty(by_outer_epoch: Mapping[int, float], alpha: float | None) -> Figure:
    """Show the novelty of every outer epoch, and α.

    Args:
        by_outer_epoch: Accepted ÷ candidates by outer epoch, from 1.
        alpha: The novelty below which the run stops; None draws no line.
    """
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    _curve(axes, by_outer_epoch)
    if alpha is not None:
        axes.axhline(alpha, color=ORANGE, linestyle="--", label=f"α = {alpha}")
        axes.legend()
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("outer epoch")
    axes.set_ylabel("novelty")
    axes.set_title("novelty: accepted ÷ candidates")
    return _calm(figure)


@_in_own_style()
def figures(rows: Mapping[int, Mapping[str, float]], names: Sequence[str]) -> Figure:
    """Show figures by outer epoch, each in a panel of its own.

    Args:
        rows: Figures by outer epoch; 0 is the pretrained model. One that is missing or not finite leaves a gap.
        names: Which figures, in their order; those after the first 24 are left out.
    """
    shown = names[:MOST_PANELS]
    columns = max(1, min(len(shown), 4))
    lines = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(3.2 * columns, 2.4 * lines), layout="constrained")
    panels = [*figure.subplots(lines, columns, squeeze=False).flat]
    for axes, name in zip(panels, shown, strict=False):
        _curve(axes, {outer_epoch: row.get(name, math.nan) for outer_epoch, row in sorted(rows.items())})
        axes.set_title(_short(name), fontsize="medium")
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("outer epoch (0: pretrained)", fontsize="medium")
    return _calm(figure)


@_in_own_style()
def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure.

    Args:
        figure: The figure.

    Returns:
        Red, green and blue of every pixel. Shape: (height, width, 3).
    """
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks is drawn as boxes
        canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's types leave its backends out
    shades = canvas.buffer_rgba()  # type: ignore[no-untyped-call]  # as above
    return np.array(shades, dtype=np.uint8)[:, :, :3]


def _curve(axes: Axes, by_outer_epoch: Mapping[int, float]) -> None:
    values = [value if abs(value) < LARGEST else math.nan for value in by_outer_epoch.values()]
    axes.plot([*by_outer_epoch], values, color=BLUE, marker="o")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _calm(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def _short(name: str) -> str:
    """Make a name one line that fits."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"
