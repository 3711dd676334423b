"""`metrics.csv`: the figures of a run, one row an outer epoch; as a file and as a table for the terminal."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

FILE = "metrics.csv"
MEASURED = ("answer_nll", "mc1", "mc2")
COUNTS = ("outer_epoch", "candidates", "accepted", "trained_on")
OF_GROWTH = ("novelty", "candidates", "accepted")
LAST = (*OF_GROWTH, "trained_on", "seconds")
WEIGHTS = "weights"
OF_TRAINING = ("train_loss", "learning_rate")  # logged as well, but by step
# what the terminal shows, where it was measured
SHOWN = {
    "answer_nll": "answer NLL",
    "validation_nll": "validation NLL",
    "mc2": "MC2",
    "harm_rate": "harm rate",
    "harm_preference": "harm preference",
    "reward": "reward",
    "cost": "cost",
    "reward_win_rate": "win rate",
    "cost_win_rate": "win rate (cost)",
}

Row = dict[str, float | int]


def read_rows(path: Path) -> dict[int, Row]:
    """Read `metrics.csv`.

    Args:
        path: The file; it need not exist.

    Returns:
        The rows by outer epoch, without the empty figures.
    """
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            {
                name: int(value) if name in COUNTS else float(value)
                for name, value in row.items()
                if value and name != WEIGHTS
            }
            for row in csv.DictReader(file)
        ]
    return {int(row["outer_epoch"]): row for row in rows}


def read_weights(path: Path) -> dict[int, str]:
    """Give the names of the weights that the figures of `metrics.csv` were measured of.

    Args:
        path: The file; it need not exist.

    Returns:
        The names by outer epoch, as of `isara_pl.datamodule.measured_weights`; nothing for a row without any.
    """
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["outer_epoch"]): row[WEIGHTS] for row in csv.DictReader(file) if row.get(WEIGHTS)}


def rows_text(rows: Mapping[int, Row], weights: Mapping[int, str]) -> str:
    """Give the rows as the text of `metrics.csv`.

    Args:
        rows: Rows by outer epoch.
        weights: The names of the weights that were measured, by outer epoch.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, [*_columns(rows), WEIGHTS])
    writer.writeheader()
    for outer_epoch in sorted(rows):
        figures = {name: _short(value) for name, value in rows[outer_epoch].items()}
        writer.writerow({**figures, WEIGHTS: weights.get(outer_epoch, "")})
    return table.getvalue()


def format_table(rows: Mapping[int, Row], baselines: Mapping[str, Row]) -> str:
    """Give the rows as a small table for the terminal.

    Args:
        rows: Rows by outer epoch.
        baselines: Rows of other runs by their names, below.
    """
    shown = [name for name in SHOWN if any(name in row for row in rows.values())]
    lines = [("", *(SHOWN[name] for name in shown), "novelty", "accepted", "trained on", "seconds")]
    named = [(outer_epoch_name(outer_epoch), row) for outer_epoch, row in sorted(rows.items())]
    for name, row in [*named, *baselines.items()]:
        accepted = f"{row['accepted']} of {row['candidates']}" if {"accepted", "candidates"} <= row.keys() else "-"
        lines.append(
            (
                name,
                *(cell(row, figure, ".3f") for figure in shown),
                cell(row, "novelty", ".2f"),
                accepted,
                cell(row, "trained_on", "d"),
                cell(row, "seconds", ".0f"),
            )
        )
    return aligned(lines)


def outer_epoch_name(outer_epoch: int) -> str:
    """Give an outer epoch's name for readers.

    Args:
        outer_epoch: Which one; 0 is the pretrained model.
    """
    return f"outer epoch {outer_epoch}" if outer_epoch else "pretrained"


def cell(row: Row, name: str, form: str) -> str:
    """Give a figure as the text of a table's cell.

    Args:
        row: The figures by name.
        name: Which one; `-` where it does not exist.
        form: How it is written, as `format` takes it.
    """
    return format(row[name], form) if name in row else "-"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Give cells as the text of a table: the first column at the left, all others at the right.

    Args:
        lines: The cells of each line.
    """
    columns = list(zip(*lines, strict=True))
    padded = [
        [text.rjust(max(map(len, column))) if place else text.ljust(max(map(len, column))) for text in column]
        for place, column in enumerate(columns)
    ]
    return "\n".join("  ".join(line) for line in zip(*padded, strict=True))


def _columns(rows: Mapping[int, Row]) -> list[str]:
    figures = dict.fromkeys(name for row in rows.values() for name in row)
    more = [name for name in figures if name not in ("outer_epoch", *MEASURED, *LAST)]
    return ["outer_epoch", *MEASURED, *more, *LAST]


def _short(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"
