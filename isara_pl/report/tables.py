"""The page's tables of figures: a heading and rows of texts, in the words and units that people read."""

from collections.abc import Sequence

from isara_pl.report.contents import Report
from isara_pl.report.words import count, duration, figure
from isara_pl.results.metrics import outer_epoch_name

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


def grown(report: Report, filters: Sequence[str]) -> Table:
    """Give what each outer epoch's growth gave."""
    rows = [
        [
            outer_epoch_name(row.outer_epoch),
            count(row.candidates),
            *(count(row.taken.get(name, 0)) for name in filters),
            count(row.accepted),
            figure(row.novelty),
            "yes" if row.trained else "no",
        ]
        for row in report.grown
    ]
    return ["", "candidates", *(f"taken by {name}" for name in filters), "accepted", "novelty", "trained on"], rows


def diversity(report: Report) -> Table:
    """Give all diversity figures by outer epoch."""
    names = [*dict.fromkeys(name for row in report.diversity for name in row.figures)]
    rows = [
        [
            "seeds" if row.outer_epoch == 0 else outer_epoch_name(row.outer_epoch),
            count(row.samples),
            *(figure(row.figures.get(name)) for name in names),
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
