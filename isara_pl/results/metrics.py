"""`metrics.csv`: the figures of a run, one row an outer epoch; as a file and as a table for the terminal."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from isara_pl.errors import InputError

FILE = "metrics.csv"
MEASURED = ("answer_nll", "mc1", "mc2")
COUNTS = ("outer_epoch", "candidates", "accepted", "trained_on")
OF_GROWTH = ("novelty", "candidates", "accepted", "data_scaling")
LAST = (*OF_GROWTH, "trained_on", "seconds")
NO_FIGURES = ("outer_epoch", *LAST)  # columns that say nothing of a model
WEIGHTS = "weights"
OF_TRAINING = ("train_loss", "learning_rate")  # logged as well, but by step
# what the terminal shows, where it was measured
SHOWN = {
    "answer_nll": "answer NLL",
    "validation_nll": "validation NLL",
    "mc2": "MC2",
    "mc2_informed": "MC2 informed",
    "harm_rate": "harm rate",
    "harm_preference": "harm preference",
    "over_refusal": "over-refusal",
    "unsafe_refusal": "refusal of unsafe",
    "reward": "reward",
    "cost": "cost",
    "reward_win_rate": "win rate",
    "cost_win_rate": "win rate (cost)",
}

Row = dict[str, float | int]


def read_rows(path: Path) -> dict[int, Row]:
    """Read the rows by outer epoch, without the empty figures; a file that is missing has none.

    Raises:
        InputError: If a row is damaged. The message begins with `FILE:LINE:`.
    """
    return {outer_epoch: row for outer_epoch, row, _ in _read(path)}


def read_weights(path: Path) -> dict[int, str]:
    """Read the names of the weights that were measured, by outer epoch; nothing for a row that does not name them.

    They are those of `isara_pl.datamodule.pooled_data`.
    """
    return {outer_epoch: weights for outer_epoch, _, weights in _read(path) if weights}


def _read(path: Path) -> Iterator[tuple[int, Row, str]]:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        try:
            for line in lines:
                weights = line.pop(WEIGHTS, "")
                row = {name: int(v) if name in COUNTS else float(v) for name, v in line.items() if v}
                yield int(row["outer_epoch"]), row, weights
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise InputError(
                f"{path}:{lines.line_num}: damaged row ({error!r}). Restore the file from a copy, or remove it"
            ) from None


def rows_text(rows: Mapping[int, Row], weights: Mapping[int, str]) -> str:
    """Give the rows as the text of `metrics.csv`, each with the name of the weights that were measured."""
    table = io.StringIO()
    writer = csv.DictWriter(table, [*columns_of(rows), WEIGHTS])
    writer.writeheader()
    for outer_epoch in sorted(rows):
        figures = {name: _short(value) for name, value in rows[outer_epoch].items()}
        writer.writerow({**figures, WEIGHTS: weights.get(outer_epoch, "")})
    return table.getvalue()


def columns_of(rows: Mapping[int, Row]) -> list[str]:
    """Give the columns of rows in the order of the file."""
    figures = dict.fromkeys(name for row in rows.values() for name in row)
    more = [name for name in figures if name not in ("outer_epoch", *MEASURED, *LAST)]
    return ["outer_epoch", *MEASURED, *more, *LAST]


def format_table(rows: Mapping[int, Row], baselines: Mapping[str, Row]) -> str:
    """Give the rows, and below them those of other runs by their names, as a small table for the terminal."""
    shown = [name for name in SHOWN if any(name in row for row in rows.values())]
    lines = [("", *(SHOWN[name] for name in shown), "novelty", "accepted", "× seeds", "trained on", "seconds")]
    named = [(outer_epoch_name(outer_epoch), row) for outer_epoch, row in sorted(rows.items())]
    for name, row in [*named, *baselines.items()]:
        accepted = f"{row['accepted']} of {row['candidates']}" if {"accepted", "candidates"} <= row.keys() else "-"
        lines.append(
            (
                name,
                *(cell(row, figure, ".3f") for figure in shown),
                cell(row, "novelty", ".2f"),
                accepted,
                cell(row, "data_scaling", ".2f"),
                cell(row, "trained_on", "d"),
                cell(row, "seconds", ".0f"),
            )
        )
    return aligned(lines)


def outer_epoch_name(outer_epoch: int) -> str:
    """Give an outer epoch's name for readers; 0 is the pretrained model."""
    return f"outer epoch {outer_epoch}" if outer_epoch else "pretrained"


def cell(row: Row, name: str, form: str) -> str:
    """Give a figure as the text of a table's cell, `-` where it does not exist; `form` as `format` takes it."""
    return format(row[name], form) if name in row else "-"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Give cells as the text of a table: the first column at the left, all others at the right."""
    columns = list(zip(*lines, strict=True))
    padded = [
        [text.rjust(max(map(len, column))) if place else text.ljust(max(map(len, column))) for text in column]
        for place, column in enumerate(columns)
    ]
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def _short(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"
