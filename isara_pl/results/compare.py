"""Methods against each other, from the figures of every item in their run folders: numbers, tables, sentences."""

import csv
import io
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError, did_you_mean, did_you_mean_path, printable
from isara_pl.results.categories import by_category
from isara_pl.results.comparison import BASELINES, FEW_ITEMS, Evaluated, Row, evaluate
from isara_pl.results.items import MEASURES, Line
from isara_pl.results.methods import Entry, pool_runs
from isara_pl.results.metrics import aligned
from isara_pl.results.run import CLAIMED, CONTROL, DISTILLATION, OF_SEEDS, PRETRAINED, measured_run
from isara_pl.results.statistics import CONFIDENCE, Difference
from isara_pl.run.files import expanded

SEED_SUFFIX = re.compile(r"(?<=.)[-_](seed[-_]?|s)\d+$")
USUAL_PLACE = "runs"  # where the configs of this project write
CONTROL_MISSING = (
    f"No run of {CONTROL} is among these, so nothing here says what the demonstrations add to distillation: the same "
    "run with data.teacher_demonstrations off does."
)
LEGEND = (
    "it covers the choice of questions, not that of seeds or of training runs, and is not corrected for the number "
    "of comparisons. Detectable from: the smallest true difference that such data would show with 80 % power."
)
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


def compare(
    given: Sequence[tuple[str, Path]],
    reference: str | None,
    every_outer_epoch: bool,
    clean: bool,
    resamples: int,
    seed: int,
) -> tuple[list[Section], dict[str, Any], str]:
    """Compare runs, each with the name of its method: as sections, as what JSON holds, and as CSV."""
    if resamples < 100:
        raise InputError(f"--resamples is {resamples}; allowed: at least 100")
    for (name, path), count in Counter((name, path.resolve()) for name, path in given).items():
        if count > 1:
            raise InputError(f"compare: {path} is given {count} times for {name!r}; give each run once")
    entries = pool_runs([(name, measured_run(path)) for name, path in given], every_outer_epoch)
    other = _reference(entries, reference)
    names = sorted({name for entry in entries for _, lines in entry.runs for name in lines if lines[name]})
    evaluations = [evaluate(name, entries, other, clean, resamples, seed) for name in names]
    about = f"paired bootstrap over the questions ({resamples} resamples, seed {seed})"
    notes = [*_notes(entries, evaluations, other), f"Every interval is a {about}: {LEGEND}"]
    found = {
        "reference": other.name,
        "confidence": CONFIDENCE,
        "measures": {name: asdict(measure) for name, measure in MEASURES.items()},
        "evaluations": [asdict(evaluated) for evaluated in evaluations],
        "categories": {
            name: [asdict(one) for one in by_category(_lines(entries, name, clean), other.name, resamples, seed)]
            for name in names
        },
        "notes": notes,
    }
    sections = [*(section(evaluated, other.name) for evaluated in evaluations), Section("Notes", [], notes)]
    return sections, found, csv_text(evaluations, other.name)


def _lines(entries: Sequence[Entry], evaluation: str, clean: bool) -> dict[str, list[Line]]:
    every = {entry.name: lines for entry in entries if (lines := entry.lines(evaluation))}
    dirty = {line.question for lines in every.values() for line in lines if line.contaminated} if clean else set()
    return {name: [line for line in lines if line.question not in dirty] for name, lines in every.items()}


def _reference(entries: Sequence[Entry], name: str | None) -> Entry:
    """Find the reference; of a method whose outer epochs are entries, the last one."""
    if name is None:
        for kind in (*OF_SEEDS, PRETRAINED):
            of_kind = [entry for entry in entries if entry.kind == kind]
            if of_kind:
                return [entry for entry in of_kind if entry.method == of_kind[0].method][-1]
        return entries[0]
    found = [entry for entry in entries if name in (entry.name, entry.method)]
    if not found:
        names = list(dict.fromkeys(known for entry in entries for known in (entry.name, entry.method)))
        raise InputError(
            f"--reference: no method is named {name!r}.{did_you_mean(repr(name), map(repr, names))} "
            f"Allowed: {', '.join(map(repr, names))}"
        )
    return found[-1]


def _notes(entries: Sequence[Entry], evaluations: Sequence[Evaluated], reference: Entry) -> list[str]:
    """Say what is missing, and what must be known to read the tables."""
    notes, kinds = [], {entry.kind for entry in entries}
    claimed = " or ".join(kind for kind in CLAIMED if kind in kinds)
    if not claimed:
        notes.append(f"No run of {' or '.join(CLAIMED)} is among these, so nothing here says whether it helps.")
    else:
        notes += [
            f"No run of {kind} is among these, so nothing here says whether {claimed} beats it: "
            f"python -m isara_pl {command}"
            for kind, command in BASELINES.items()
            if kind not in kinds
        ]
    if DISTILLATION in kinds and CONTROL not in kinds:
        notes.append(CONTROL_MISSING)
    notes += [
        f"{entry.name}: {path} was not measured after training (α ended it in outer epoch 1, or it did not finish); "
        "it counts with its pretrained model."
        for entry in entries
        if entry.kind in (*CLAIMED, CONTROL)
        for path, lines in entry.runs
        if all(line.outer_epoch == 0 for of_evaluation in lines.values() for line in of_evaluation)
    ]
    for evaluated in evaluations:
        if reference.name not in {row.method for row in evaluated.rows}:
            notes.append(f"{evaluated.name}: {reference.name} was not measured, so there are no differences to it.")
        if max(row.items for row in evaluated.rows) < FEW_ITEMS:
            notes.append(f"{evaluated.name}: intervals from fewer than {FEW_ITEMS} items are too narrow to be trusted.")
    return notes


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
    return str(found) if found else "-"


def _detectable(found: Difference | None) -> str:
    return f"{found.minimum_detectable_effect:.3f}" if found else "-"


def _span(outer_epochs: Sequence[int]) -> str:
    first, last = min(outer_epochs), max(outer_epochs)
    return str(last) if first == last else f"{first}-{last}"


def named_run(text: str, option: str) -> tuple[str, Path]:
    """Give the name of a method, and the folder of a run of it, from `RUN` or `NAME=RUN`.

    Without NAME the method is called like the folder, without a seed at the end. Errors name the option that it is of.

    Raises:
        InputError: If there is no such folder; the message names the nearest one that exists.
    """
    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists():
        rest = text
        name = SEED_SUFFIX.sub("", Path(text).resolve().name)
    rest = expanded(rest)  # a `~` behind NAME= is none that a shell expands
    if not name or not rest or not Path(rest).is_dir():
        raise InputError(
            f"{option}: {text!r} names no run folder.{_nearest(rest)} Allowed: RUN or NAME=RUN, with an existing folder"
        )
    return name, Path(rest)


def run_folder_at(text: str, option: str, or_else: str = "") -> Path:
    """Give a run folder that exists; errors name the option that it is of, and what else that allows.

    Raises:
        InputError: If there is no such folder; the message names the nearest one that exists.
    """
    if not text or not Path(text).is_dir():
        raise InputError(f"{option}: {text!r} is no folder.{_nearest(text)} Allowed: the folder of a run{or_else}")
    return Path(text)


def _nearest(text: str) -> str:
    usual = str(Path(USUAL_PLACE, text))
    return did_you_mean_path(text, Path.is_dir) or did_you_mean_path(usual, Path.is_dir)
