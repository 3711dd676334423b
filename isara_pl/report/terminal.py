"""What the terminal shows when a run has ended: its figures, how to read them, and where everything lies."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from isara_pl.report.metrics import LAST, SHOWN, Row, format_table, read_rows

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
    """Give what is shown at the end of a run.

    Args:
        run_dir: The run folder.
        baselines: Names and folders of the runs that it is compared with.
    """
    rows = read_rows(run_dir / "metrics.csv")
    beside = {name: _last_measured(path) for name, path in baselines}
    found = {name: row for name, row in beside.items() if row is not None}
    files = [f"{run_dir / name}: {meaning}" for name, meaning in FILES.items() if (run_dir / name).exists()]
    return "\n".join(["", format_table(rows, found), reading(rows), *[BESIDE] * bool(found), "", *files])


def _last_measured(run_dir: Path) -> Row | None:
    """Give the last figures of another run; None where there are none, or its file cannot be read."""
    try:
        rows = read_rows(run_dir / "metrics.csv")
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    measured = [row for _, row in sorted(rows.items()) if any(name in row for name in SHOWN)]
    return measured[-1] if measured else None


def reading(rows: Mapping[int, Row]) -> str:
    """Say in a line or two what the table shows, also where it is not what one hoped for.

    Args:
        rows: The rows of metrics.csv by outer epoch.
    """
    if not any(name not in ("outer_epoch", *LAST) for row in rows.values() for name in row):
        return "No held-out pairs were given (--data.held_out), so nothing here shows whether this run helped."
    if all(name in ("outer_epoch", "validation_nll", *LAST) for row in rows.values() for name in row):
        return "validation NLL: per answer token of the seeds of data.validation_share, lower is better."
    measured = {outer_epoch: row["answer_nll"] for outer_epoch, row in rows.items() if "answer_nll" in row}
    if not measured:
        return "metrics.csv holds every figure; `python -m isara_pl compare` tells what a difference is worth."
    legend = "answer NLL: per held-out answer token, lower is better. MC2: in 0 to 1, higher is better."
    lowest = min(measured, key=lambda outer_epoch: measured[outer_epoch])
    if lowest == max(measured):
        return legend
    name = "the pretrained model" if lowest == 0 else f"outer epoch {lowest}"
    return f"{legend}\nThe answer NLL was lowest at {name}, not at the last outer epoch, whose adapter this is."
