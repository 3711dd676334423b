"""`isara-pl compare --alpha`: where every α would have stopped a run that was made without early stopping."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError
from isara_pl.results.compare import Section, Table, measure_label, to_csv
from isara_pl.results.items import MEASURES
from isara_pl.results.metrics import FILE, NO_FIGURES, Row, columns_of
from isara_pl.results.run import Run

# shown beside the measures of a comparison; the files hold every column
SHOWN_TOO = ("best_answer_nll", "harmless_nll")

Rows = Mapping[int, Row]


@dataclass(frozen=True)
class AlphaRange:
    """What every α above `above` and up to `up_to` leads to.

    Attributes:
        above: Lower end, which is not part of the range; None where it begins at 0.
        up_to: Upper end, which is.
        stops_in: The outer epoch whose novelty is below α; None if no outer epoch's is.
        model_of: The outer epoch whose model is left; 0 is the pretrained one, None is not known.
        accepted: Samples that this model was trained on, without the seeds.
        figures: Its figures, by their columns; None is not finite.
    """

    above: float | None
    up_to: float
    stops_in: int | None
    model_of: int | None
    accepted: int | None
    figures: dict[str, float | None]


def alpha_ranges(rows: Rows) -> list[AlphaRange]:
    """Give the ranges of α from 0 to 1 by what they lead to.

    Training stops in the first outer epoch whose novelty is below α, and does not train on it
    (arXiv 2401.06785, step 5). So α stops in an outer epoch if it is above its novelty, and not above
    that of an earlier one. The rows of outer epochs 1 to T have `novelty`, `accepted` and `trained_on`.
    """
    last = max(rows)
    complete = rows[last]["trained_on"] > 0
    ranges, lowest = [], 1.0
    for outer_epoch in range(1, last + 1):
        novelty = rows[outer_epoch]["novelty"]
        if novelty < lowest:
            ranges.append(_range(rows, novelty, lowest, outer_epoch, outer_epoch - 1))
            lowest = novelty
    ranges.append(_range(rows, None, lowest, None, last if complete else None))
    return ranges[::-1]


def report(run: Run) -> tuple[list[Section], dict[str, Any], str]:
    """Give the ranges of a run as a section, as what JSON holds and as CSV.

    Raises:
        InputError: If it has no `metrics.csv` with the novelty of every outer epoch.
    """
    rows, path = run.metrics, run.folder / FILE
    _check(path, rows)
    used = {name for row in rows.values() for name in row if name not in NO_FIGURES}
    columns = [name for name in columns_of(rows) if name in used]
    shown = [name for name in columns if name in MEASURES or name in SHOWN_TOO]
    ranges = alpha_ranges(rows)
    last = max(rows)
    table = Table(
        ("α", "stops", "model", "accepted", *map(measure_label, shown)),
        [
            (
                *(_span(found), _stop(found), _model(found)),
                "-" if found.accepted is None else str(found.accepted),
                *(_figure(found, name) for name in shown),
            )
            for found in ranges
        ],
    )
    notes = ["Accepted: the samples that the model was trained on, beside the seeds."]
    if ranges[0].model_of is None:
        notes.append(
            f"Outer epoch {last} was not trained on (α stopped this run, or it did not finish), so nothing is known "
            f"of an α up to {ranges[0].up_to:.3f}. Run it with --alpha_stopping.alpha 0 to know."
        )
    found = {"run": str(run.folder), "ranges": [asdict(found) for found in ranges], "notes": notes}
    lines = [
        (r.above, r.up_to, r.stops_in, r.model_of, r.accepted, *(r.figures.get(name) for name in columns))
        for r in ranges
    ]
    head = ("alpha_above", "alpha_up_to", "stops_in", "model_of", "accepted", *columns)
    return [Section(f"{run.folder}: where α would have stopped it", [table], notes)], found, to_csv(head, lines)


def _range(rows: Rows, above: float | None, up_to: float, stops_in: int | None, model_of: int | None) -> AlphaRange:
    if model_of is None:
        return AlphaRange(above, up_to, stops_in, None, None, {})
    accepted = sum(int(rows[outer_epoch]["accepted"]) for outer_epoch in range(1, model_of + 1))
    row = rows.get(model_of, {})
    figures = {name: value if math.isfinite(value) else None for name, value in row.items() if name not in NO_FIGURES}
    return AlphaRange(above, up_to, stops_in, model_of, accepted, figures)


def _check(path: Path, rows: Rows) -> None:
    if not path.exists():
        raise InputError(f"{path}: no such file. --alpha needs a run of `isara-pl fit`")
    grown = range(1, max(rows, default=0) + 1)
    missing = [t for t in grown if not {"novelty", "accepted", "trained_on"} <= rows.get(t, {}).keys()]
    if missing or not grown:
        where = f"outer epoch {missing[0]} has" if missing else "there is"
        raise InputError(f"{path}: {where} no novelty. --alpha needs a run of self-generation, with every outer epoch")
    untrained = [t for t in grown[:-1] if not rows[t]["trained_on"]]
    if untrained:
        raise InputError(
            f"{path}: outer epoch {untrained[0]} was not trained on. --alpha needs a run that went through"
        )


def _span(found: AlphaRange) -> str:
    return f"α ≤ {found.up_to:.3f}" if found.above is None else f"{found.above:.3f} < α ≤ {found.up_to:.3f}"


def _stop(found: AlphaRange) -> str:
    if found.stops_in is not None:
        return f"in outer epoch {found.stops_in}"
    return "not known" if found.model_of is None else "never"


def _model(found: AlphaRange) -> str:
    if found.model_of is None:
        return "not known"
    return f"outer epoch {found.model_of}" if found.model_of else "pretrained"


def _figure(found: AlphaRange, name: str) -> str:
    if name not in found.figures:
        return "-"
    value = found.figures[name]
    return "not finite" if value is None else f"{value:.3f}"
