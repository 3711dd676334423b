"""What the terminal shows: an outer epoch in a few lines; a run that has ended, its figures and where it lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import east_asian_width

from isara_pl.errors import InputError, printable
from isara_pl.growth.samples import Sample
from isara_pl.report.contents import GrownOuterEpoch
from isara_pl.results.answers import Answered, read_answers
from isara_pl.results.metrics import (
    NO_FIGURES,
    SHOWN,
    Row,
    aligned,
    cell,
    format_table,
    outer_epoch_name,
)
from isara_pl.results.run import Run

WIDEST = 100  # columns
ANSWERS = 3  # held-out questions at the end of a run
MOST_FILTERS = 6  # lines; with the samples and the figures that is never more than 25 altogether
MOST_FIGURES = 6
FILES = {
    "report.html": "whether it helped, why it stopped, what it cost and every sample, for a browser",
    "adapter": "LoRA adapter, for peft.PeftModel.from_pretrained",
    "pool.jsonl": "seeds and accepted samples, with their lineage",
    "rejected.jsonl": "rejected candidates, with the filter and its figure",
    "metrics.csv": "the table above, with all figures",
    "ledger.csv": "what every stage took: seconds, tokens, FLOPs, memory",
    "evaluation": "the figures of every item, for `python -m isara_pl compare`",
    "config.yaml": "every option of this run",
}
BESIDE = "Other runs are shown as they were measured last; report.html and `compare` say what a difference is worth."


def ending(run_dir: Path, baselines: Sequence[tuple[str, Path]]) -> str:
    """Give what is shown at the end of a run, beside the other runs that it is compared with, by their names."""
    run = Run(run_dir)
    measured, rows = run.metrics, _own(run)
    beside = {name: _last_measured(Run(path)) for name, path in baselines}
    found = {name: row for name, row in beside.items() if row is not None}
    files = [f"{run_dir / name}: {meaning}" for name, meaning in FILES.items() if (run_dir / name).exists()]
    legend = [reading(rows), *[_of_context(measured)] * (rows != measured), *[BESIDE] * bool(found)]
    return "\n".join(["", format_table(rows, found), *legend, "", *_answers(run_dir), *files])


def _answers(run_dir: Path) -> list[str]:
    """Give some held-out questions with their answers, the worst by NLL change first, under a heading; or nothing."""
    try:
        answers = read_answers(run_dir)[:ANSWERS]
    except InputError:  # a damaged file, which the report names
        return []
    lines = [_one_line(line, WIDEST) for one in answers for line in answered_lines(one)]
    return ["Held-out questions, and what was answered; report.html has more:", *lines, ""] if lines else []


def answered_lines(one: Answered) -> list[str]:
    """Give a held-out question, and a line for each answer, as they are in the file."""
    answers = (("given:", one.given), ("pretrained:", one.pretrained), ("trained:", one.trained))
    shown = [f"    {name:<12}{' '.join(text.split())}" for name, text in answers if text is not None]
    return [f"  {one.question}", *shown]


def _own(run: Run) -> dict[int, Row]:
    """Give the rows as the method has them, which of in-context learning are those with demonstrations."""
    if any(outer_epoch > 0 for outer_epoch in run.metrics):  # it was trained
        return run.metrics
    try:
        return run.own_metrics()
    except InputError:  # a damaged file of items; the table needs none
        return run.metrics


def _of_context(measured: Mapping[int, Row]) -> str:
    without = measured.get(0, {}).get("answer_nll")
    but = "" if without is None else f"; without them the answer NLL of the held-out pairs is {without:.3f}"
    return f"All of it with demonstrations in the prompt (in-context learning){but}."


def _last_measured(run: Run) -> Row | None:
    """Give the last figures of another run; None where there are none, or its file cannot be read."""
    try:
        rows = _own(run)
    except (OSError, InputError):
        return None
    measured = [row for _, row in sorted(rows.items()) if any(name in row for name in SHOWN)]
    return measured[-1] if measured else None


def reading(rows: Mapping[int, Row]) -> str:
    """Say in a line or two what the table shows, also where it is not what one hoped for."""
    if not any(name not in NO_FIGURES for row in rows.values() for name in row):
        return "No held-out pairs were given (--data.held_out), so nothing here shows whether this run helped."
    if all(name in ("validation_nll", *NO_FIGURES) for row in rows.values() for name in row):
        return "validation NLL: per answer token of the seeds of data.validation_share, lower is better."
    measured = {outer_epoch: row["answer_nll"] for outer_epoch, row in rows.items() if "answer_nll" in row}
    if not measured:
        return "metrics.csv holds every figure; `python -m isara_pl compare` tells what a difference is worth."
    legend = "answer NLL: per held-out answer token, lower is better."
    legend += " MC2: in 0 to 1, higher is better." if any("mc2" in row for row in rows.values()) else ""
    if any("mc2_informed" in row for row in rows.values()):
        legend += "\nMC2 informed: MC2 minus that of the same answers after another question; 0 is style alone."
    lowest = min(measured, key=lambda outer_epoch: measured[outer_epoch])
    if lowest == max(measured):
        return legend
    name = "the pretrained model" if lowest == 0 else f"outer epoch {lowest}"
    return f"{legend}\nThe answer NLL was lowest at {name}, not at the last outer epoch, whose adapter this is."


def format_summary(
    grown: GrownOuterEpoch,
    alpha: float | None,
    samples: Sequence[Sample],
    answered: Answered | None,
    figures: Mapping[int, Row],
    columns: int,
) -> str:
    """Give what an outer epoch came to: novelty, what each filter took, some of its samples, an answer, the figures.

    Args:
        grown: What its growth gave.
        alpha: The novelty below which the run stops; None where nothing stops it.
        samples: Up to 2 of its samples.
        answered: A held-out question that the model was asked after training on it.
        figures: Of each outer epoch that it is to be seen beside, and of its own; may be empty.
        columns: Width of the terminal.

    Returns:
        At most 25 lines of at most 100 columns, harmless to a terminal.
    """
    width = min(columns, WIDEST)
    lines = [f"{outer_epoch_name(grown.outer_epoch)}: {_novelty(grown, alpha)}", *_waterfall(grown)]
    for sample in samples:
        lines += [f"  {sample.id}  Q: {sample.question}", f"  {' ' * len(sample.id)}  A: {sample.answer}"]
    lines += answered_lines(answered) if answered else []
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
