"""An outer epoch in a few lines for the terminal."""

from collections.abc import Mapping, Sequence
from unicodedata import east_asian_width

from isara_pl.errors import printable
from isara_pl.growth.samples import Sample
from isara_pl.report.contents import GrownOuterEpoch
from isara_pl.results.metrics import SHOWN, Row, aligned, cell, outer_epoch_name

WIDEST = 100  # columns
MOST_FILTERS = 7  # lines; with the samples and the figures that is never more than 25 altogether
MOST_FIGURES = 6


def format_summary(
    grown: GrownOuterEpoch, alpha: float | None, samples: Sequence[Sample], figures: Mapping[int, Row], columns: int
) -> str:
    """Give what an outer epoch came to: novelty, what each filter took, some of its samples, the figures.

    Args:
        grown: What its growth gave.
        alpha: The novelty below which the run stops; None where nothing stops it.
        samples: Up to 3 of its samples.
        figures: Figures by name, of each outer epoch that it is to be seen beside and of its own; may be empty.
        columns: Width of the terminal.

    Returns:
        At most 25 lines of at most 100 columns, harmless to a terminal.
    """
    width = min(columns, WIDEST)
    lines = [f"{outer_epoch_name(grown.outer_epoch)}: {_novelty(grown, alpha)}", *_waterfall(grown)]
    for sample in samples:
        lines += [f"  {sample.id}  Q: {sample.question}", f"  {' ' * len(sample.id)}  A: {sample.answer}"]
    shown = [name for name in SHOWN if any(name in row for row in figures.values())][:MOST_FIGURES]
    if shown:
        table = [("", *(outer_epoch_name(outer_epoch) for outer_epoch in figures))]
        table += [(SHOWN[name], *(cell(row, name, ".3f") for row in figures.values())) for name in shown]
        lines += [f"  {line}" for line in aligned(table).splitlines()]
    return "\n".join(_one_line(line, width) for line in lines)


def _novelty(grown: GrownOuterEpoch, alpha: float | None) -> str:
    if grown.novelty is None:
        return "no candidates"
    said = f"novelty {grown.novelty:.3f}"
    if alpha is None:
        return said
    return f"{said}, not below α = {alpha}" if grown.trained else f"{said}, below α = {alpha}: not trained on"


def _waterfall(grown: GrownOuterEpoch) -> list[str]:
    """Say how the candidates became fewer, filter by filter."""
    taken = [(name, count) for name, count in grown.taken.items() if count]
    none = [name for name, count in grown.taken.items() if not count]
    if len(taken) > MOST_FILTERS:
        others = taken[MOST_FILTERS - 1 :]
        rest = (f"{len(others)} further filters", sum(count for _, count in others))
        taken = [*taken[: MOST_FILTERS - 1], rest]
    steps, left = [("candidates", "", str(grown.candidates))], grown.candidates
    for name, count in taken:
        left -= count
        steps.append((name, f"-{count}", str(left)))
    steps.append(("accepted", "", str(grown.accepted)))
    lines = [f"  {line}" for line in aligned(steps).splitlines()]
    return [*lines, f"  nothing taken by {', '.join(none)}"] if none else lines


def _one_line(text: str, width: int) -> str:
    """Give a text that a model may have written as one line that fits."""
    whole = printable(" ".join(text.splitlines()))
    if _columns(whole[: width + 1]) <= width:
        return whole
    shortened = whole[: width - 1]
    while _columns(shortened) > width - 1:
        shortened = shortened[:-1]
    return f"{shortened}…"


def _columns(text: str) -> int:
    """Give how many columns of a terminal a text takes: letters of East Asia take two."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
