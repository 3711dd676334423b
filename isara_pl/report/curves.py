"""The figures of a run by outer epoch, and what became of the candidates."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from isara_pl.growth.pool import Rejected
from isara_pl.growth.samples import Sample
from isara_pl.report.contents import Curve, GrownOuterEpoch
from isara_pl.results.measures import MEASURES
from isara_pl.results.metrics import LAST

Rows = Mapping[int, Mapping[str, float]]

# what a reader asks for first; the other measures follow in their own order, then all other columns
TELLING = ("answer_nll", "mc2", "harm_rate", "harm_preference", "reward", "cost", "win_rate")
NOT_FINITE, CLEAN = "not_finite", "_clean"


def curves(rows: Rows, baselines: Mapping[str, Sequence[Rows]], shown_elsewhere: Sequence[str]) -> list[Curve]:
    """Give a curve for every column of metrics.csv that is a figure of a model, the most telling first.

    Of baselines, by their names, the mean over the runs of a name counts. What is shown elsewhere is left out.
    """
    columns = list(dict.fromkeys(name for _, row in sorted(rows.items()) for name in row))
    left_out = {"outer_epoch", *LAST, *shown_elsewhere}
    found = []
    for column in sorted((name for name in columns if name not in left_out), key=_order):
        outer_epochs = [number for number in sorted(rows) if column in rows[number]]
        values = [_finite(rows[number][column]) for number in outer_epochs]
        if NOT_FINITE in column and not any(values):
            continue  # a count of what did not happen
        label, higher_is_better = described(column)
        ends = {name: [_last(of_run, column) for of_run in runs] for name, runs in baselines.items()}
        lines = {name: sum(known) / len(known) for name, of_runs in ends.items() if (known := _known(of_runs))}
        found.append(Curve(column, label, higher_is_better, outer_epochs, values, lines))
    return found


def described(column: str) -> tuple[str, bool | None]:
    """Say how readers call a column of metrics.csv, and whether higher is better; None where neither is.

    A column is a measure, perhaps with the name of an evaluation before it and `_clean` behind it.
    """
    name = column.removesuffix(CLEAN)
    ending = " on clean items" if name != column else ""
    for measure, known in MEASURES.items():
        if name == measure:
            return known.label + ending, known.higher_is_better
    for measure, known in MEASURES.items():
        if name.endswith(f"_{measure}"):
            return f"{known.label} ({name.removesuffix(f'_{measure}')}){ending}", known.higher_is_better
    for measure, known in MEASURES.items():
        if name.startswith(f"{measure}_") and NOT_FINITE not in name:
            return f"{known.label} in {name.removeprefix(f'{measure}_')}{ending}", known.higher_is_better
    return name.replace("_", " ") + ending, None


def _order(column: str) -> tuple[int, int]:
    names = (*TELLING, *MEASURES)
    return (0, names.index(column)) if column in names else (1, 0)


def _last(rows: Rows, column: str) -> float | None:
    """Give the figure of the last model: the trained one, where there is one."""
    having = [number for number in rows if column in rows[number]]
    return _finite(rows[max(having)][column]) if having else None


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def grown_outer_epochs(
    samples: Sequence[Sample], rejected: Sequence[Rejected], filters: Any, trained: Callable[[int], bool]
) -> list[GrownOuterEpoch]:
    """Count candidates, accepted ones and what each filter took, by outer epoch.

    Args:
        samples: The pool.
        rejected: Rejected candidates.
        filters: In their order, as `isara_pl.run.conditions.described` gives them; None is not known.
        trained: Whether an outer epoch was trained on.
    """
    names = _in_order(samples, rejected, filters)
    accepted = Counter(sample.outer_epoch for sample in samples if sample.outer_epoch > 0)
    taken = Counter((entry.candidate.outer_epoch, entry.filter) for entry in rejected)
    found = []
    for number in sorted({*accepted, *(outer_epoch for outer_epoch, _ in taken)}):
        by_filter = {name: taken[number, name] for name in names}
        candidates = accepted[number] + sum(by_filter.values())
        found.append(GrownOuterEpoch(number, candidates, accepted[number], by_filter, trained(number)))
    return found


def _in_order(samples: Sequence[Sample], rejected: Sequence[Rejected], filters: Any) -> list[str]:
    """Give the filters in the order that they were asked in; one that is found in the files alone comes last."""
    stated = [str(name).partition("(")[0] for name in filters] if isinstance(filters, list) else []
    passed = [name for sample in samples for name in sample.scores]
    return list(dict.fromkeys([*stated, *passed, *(entry.filter for entry in rejected)]))
