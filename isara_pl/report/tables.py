"""Tables of figures for the page, in the words and units that people read, and of samples for loggers."""

import random
import re
from collections.abc import Sequence
from itertools import accumulate

from isara_pl.errors import printable
from isara_pl.growth.pool import Rejected, SamplePool
from isara_pl.report.contents import SHARES, TRAINED, Report, count, duration, figure, share
from isara_pl.results.items import MEASURES
from isara_pl.results.metrics import outer_epoch_name
from isara_pl.results.run import PRETRAINED
from isara_pl.run.files import REJECTED, entries
from isara_pl.run.randomness import derive_seed

BY_CATEGORY = ("answer_nll", "mc2", "harm_rate", "harm_preference", "over_refusal", "unsafe_refusal", "reward", "cost")
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # headings of the columns, and rows


def curves(report: Report) -> Table:
    """Give every curve's values: a row for each outer epoch, then one for each baseline."""
    values = [dict(zip(curve.outer_epochs, curve.values, strict=True)) for curve in report.curves]
    baselines = dict.fromkeys(name for curve in report.curves for name in curve.baselines)
    rows = [
        [outer_epoch_name(number), *(figure(of_curve.get(number)) for of_curve in values)]
        for number in sorted({number for of_curve in values for number in of_curve})
    ]
    rows += [
        [f"baseline {name}", *(figure(curve.baselines.get(name)) for curve in report.curves)] for name in baselines
    ]
    return ["", *(f"{curve.label}{_arrow(curve.higher_is_better)}" for curve in report.curves)], rows


def categories(report: Report) -> Table:
    """Give what training did in each category of items, in the most telling measures: a row for each."""
    rows = [
        [
            of_one.category,
            evaluation,
            count(of_one.items),
            f"{MEASURES[contrast.measure].label}{_arrow(MEASURES[contrast.measure].higher_is_better)}",
            figure(of_one.values[contrast.reference][contrast.measure]),
            figure(of_one.values[contrast.method][contrast.measure]),
            str(found),
            contrast.conclusion,
        ]
        for evaluation, of_evaluation in report.categories.items()
        for of_one in of_evaluation
        for contrast in of_one.contrasts
        if contrast.measure in BY_CATEGORY and (found := contrast.difference) is not None
    ]
    return ["", "evaluation", "items", "measure", PRETRAINED, TRAINED, "difference", "reading"], rows


def grown(report: Report, filters: Sequence[str]) -> Table:
    """Give what each outer epoch's growth gave, and what the data have grown to by then."""
    seeds = sum(one.status == "seed" for one in report.samples)
    every = accumulate((row.accepted for row in report.grown), initial=seeds)
    next(every)  # before the first
    rows = [
        [
            outer_epoch_name(row.outer_epoch),
            count(row.candidates),
            *(count(row.taken.get(name, 0)) for name in filters),
            count(row.accepted),
            share(row.novelty),
            figure(samples / seeds if seeds else None),
            "yes" if row.trained else "no",
        ]
        for row, samples in zip(report.grown, every, strict=True)
    ]
    took = [f"taken by {name}" for name in filters]
    return ["", "candidates", *took, "accepted", "novelty", "all samples ÷ seeds", "trained on"], rows


def diversity(report: Report) -> Table:
    """Give all diversity figures by outer epoch."""
    names = [*dict.fromkeys(name for row in report.diversity for name in row.figures)]
    rows = [
        [
            "seeds" if row.outer_epoch == 0 else outer_epoch_name(row.outer_epoch),
            count(row.samples),
            *((share if name in SHARES else figure)(row.figures.get(name)) for name in names),
        ]
        for row in report.diversity
    ]
    return ["", "samples", *(name.replace("_", " ") for name in names)], rows


def totals(report: Report) -> Table:
    """Give what each outer epoch cost; money only where there is a price."""
    priced = any(row.cost is not None for row in report.totals)
    rows = [
        [
            outer_epoch_name(row.outer_epoch),
            duration(row.wall_seconds),
            duration(row.seconds_per_accepted),
            *([figure(row.cost), figure(row.cost_per_accepted)] if priced else []),
            figure(row.break_even_queries),
        ]
        for row in report.totals
    ]
    money = ["cost", "cost of growing per accepted sample"] if priced else []
    return ["", "time", "time of growing per accepted sample", *money, "break-even queries"], rows


def spent(report: Report) -> Table:
    """Give what each stage of each outer epoch cost."""
    rows = [
        [
            outer_epoch_name(row.outer_epoch),
            row.stage,
            duration(row.wall_seconds),
            duration(row.cpu_seconds),
            count(row.prompt_tokens),
            count(row.generated_tokens),
            figure(row.flops / 1e12),
            f"{row.peak_memory_bytes / 2**30:.2f} GiB",
            count(row.samples),
            figure(row.cost),
        ]
        for row in report.spent
    ]
    times, tokens = ("time", "processor time"), ("prompt tokens", "generated tokens")
    return ["", "stage", *times, *tokens, "TFLOP", "peak memory", "samples", "cost"], rows


def _arrow(higher_is_better: bool | None) -> str:
    return "" if higher_is_better is None else " ↑" if higher_is_better else " ↓"


COLUMNS = ("status", "id", "question", "answer", "filter", "figure", "reason")
Row = list[str | float | None]

# what Markdown or HTML read as more than a character
_MARKUP = re.compile(r"""[&<>"'\\`*_{}\[\]()#+\-.!|~^$:]""")


def drawn_rows(pool: SamplePool, outer_epoch: int, most: int, seed: int) -> list[Row]:
    """Draw samples of an outer epoch, and candidates that its filters rejected; each in the order of the run.

    Args:
        pool: The pool; its folder holds the rejected candidates.
        outer_epoch: Which outer epoch.
        most: Most samples, and most rejected candidates.
        seed: The run's seed, which decides the draw.

    Returns:
        Rows of `COLUMNS`; `filter`, `figure` and `reason` are those of a rejected candidate's filter, else None.
    """
    accepted: list[Row] = [
        ["accepted", sample.id, sample.question, sample.answer, None, None, None]
        for sample in pool.accepted(outer_epoch)
    ]
    taken = [] if pool.folder is None else entries(pool.folder / REJECTED, Rejected.from_json)
    rejected: list[Row] = [
        ["rejected", one.id, one.question, one.answer, entry.filter, entry.verdict.figure, entry.verdict.reason]
        for entry in taken
        if (one := entry.candidate).outer_epoch == outer_epoch
    ]
    draw = random.Random(derive_seed(seed, "logged samples", outer_epoch))
    return [
        row
        for rows in (accepted, rejected)
        for row in (rows[place] for place in sorted(draw.sample(range(len(rows)), min(most, len(rows)))))
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table in which every text stands literally, whatever Markdown or HTML it holds.

    Args:
        rows: Rows of `COLUMNS`.
    """
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([_cell(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return f"{value:.4g}"
    plain = printable(value.replace("\r\n", "\n"))
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", plain).replace("\n", "<br>")
