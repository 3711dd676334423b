"""How a comparison is shown: as text for the terminal, as Markdown and as CSV."""

import csv
import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from isara_pl.errors import printable
from isara_pl.results.comparison import Evaluated, Row
from isara_pl.results.measures import MEASURES
from isara_pl.results.metrics import aligned
from isara_pl.results.statistics import Difference

WIDTH = 120  # columns of a terminal
CSV_COLUMNS = (
    *("evaluation", "method", "kind", "runs", "items", "measure", "value", "reference", "difference"),
    *("low", "high", "minimum_detectable_effect", "not_finite"),
)


@dataclass(frozen=True)
class Table:
    """A table: its head, and rows of as many cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading, tables and paragraphs, which the terminal and Markdown both show."""

    heading: str
    tables: list[Table]
    paragraphs: list[str]


def section(evaluated: Evaluated, reference: str) -> Section:
    """Give an evaluation as a section; the differences to the reference are shown."""
    heading = f"{evaluated.name}: {evaluated.items} items"
    if evaluated.contaminated:
        rest = "left out" if evaluated.left_out else "--clean leaves them out"
        heading += f", {evaluated.contaminated} of them contaminated ({rest})"
    if evaluated.unchecked:
        heading += f", {evaluated.unchecked} never looked for in training data"
    figures = Table(
        ("method", "kind", "runs", "outer epoch", "items", *map(measure_label, evaluated.measures)),
        [
            (
                *(row.method, row.kind, str(len(row.runs)), _span(row.outer_epochs), str(row.items)),
                *(_value(row, measure) for measure in evaluated.measures),
            )
            for row in evaluated.rows
        ],
    )
    shown = [contrast for contrast in evaluated.contrasts if contrast.reference == reference]
    differences = Table(
        (f"difference to {reference}", "measure", "95 % interval", "reading", "detectable from", "not finite"),
        [
            (
                *(contrast.method, measure_label(contrast.measure), _interval(contrast.difference)),
                *(contrast.conclusion, _detectable(contrast.difference), str(contrast.not_finite)),
            )
            for contrast in shown
        ],
    )
    return Section(heading, [figures, differences] if shown else [figures], evaluated.sentences)


def csv_text(evaluations: Sequence[Evaluated], reference: str) -> str:
    """Give one line for each evaluation, method and measure, with the difference to the reference."""
    lines: list[Sequence[object]] = []
    for evaluated in evaluations:
        contrasts = {(c.method, c.measure): c for c in evaluated.contrasts if c.reference == reference}
        for row in evaluated.rows:
            for measure, value in row.values.items():
                contrast = contrasts.get((row.method, measure))
                found = contrast.difference if contrast else None
                numbers = (
                    (found.difference, found.low, found.high, found.minimum_detectable_effect) if found else [""] * 4
                )
                about = (evaluated.name, row.method, row.kind, len(row.runs), row.items, measure)
                lines.append((*about, value, reference if contrast else "", *numbers, row.not_finite[measure]))
    return to_csv(CSV_COLUMNS, lines)


def measure_label(measure: str) -> str:
    """Give a measure's label with an arrow in the direction that is better; other columns as they are."""
    if measure not in MEASURES:
        return measure
    return f"{MEASURES[measure].label} {'↑' if MEASURES[measure].higher_is_better else '↓'}"


def as_text(sections: Sequence[Section]) -> str:
    """Give sections for the terminal."""
    blocks = []
    for part in map(_printable, sections):
        blocks += [part.heading, *("\n" + aligned([table.head, *table.rows]) for table in part.tables)]
        if part.paragraphs:
            blocks += ["", *(textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in part.paragraphs)]
        blocks.append("")
    return "\n".join(blocks)


def as_markdown(sections: Sequence[Section]) -> str:
    """Give sections as Markdown."""
    blocks = []
    for part in (_printable(part, as_markdown=True) for part in sections):
        blocks.append(f"## {part.heading}\n")
        for table in part.tables:
            sides = [":--", *["--:"] * (len(table.head) - 1)]
            lines = [[cell.replace("|", "\\|") for cell in line] for line in (table.head, *table.rows)]
            blocks.append("\n".join(f"| {' | '.join(line)} |" for line in [lines[0], sides, *lines[1:]]) + "\n")
        blocks.append("".join(f"- {text}\n" for text in part.paragraphs))
    return "\n".join(blocks)


def to_csv(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Give a header and lines as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()


def _printable(part: Section, as_markdown: bool = False) -> Section:
    """Escape what names may hold: control characters, which would steer a terminal, and HTML in Markdown."""

    def escaped(texts: Sequence[str]) -> list[str]:
        lines = [printable(text).replace("\n", "\\n") for text in texts]
        # what begins a tag; "a < b" stays readable
        return [re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line) for line in lines] if as_markdown else lines

    tables = [Table(escaped(table.head), [escaped(row) for row in table.rows]) for table in part.tables]
    return Section(escaped([part.heading])[0], tables, escaped(part.paragraphs))


def _value(row: Row, measure: str) -> str:
    if measure not in row.values:
        return "-"
    value = row.values[measure]
    cell = "-" if value is None else f"{value:.3f}"
    return f"{cell} (not finite: {row.not_finite[measure]})" if row.not_finite[measure] else cell


def _interval(found: Difference | None) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" if found else "-"


def _detectable(found: Difference | None) -> str:
    return f"{found.minimum_detectable_effect:.3f}" if found else "-"


def _span(outer_epochs: Sequence[int]) -> str:
    first, last = min(outer_epochs), max(outer_epochs)
    return str(last) if first == last else f"{first}-{last}"
