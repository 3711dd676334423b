"""What the terminal shows when a run has ended: its figures, how to read them, and where everything lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from isara_pl.errors import InputError
from isara_pl.results.metrics import NO_FIGURES, SHOWN, Row, format_table
from isara_pl.results.run import Run

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
    return "\n".join(["", format_table(rows, found), *legend, "", *files])


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
    legend = "answer NLL: per held-out answer token, lower is better. MC2: in 0 to 1, higher is better."
    lowest = min(measured, key=lambda outer_epoch: measured[outer_epoch])
    if lowest == max(measured):
        return legend
    name = "the pretrained model" if lowest == 0 else f"outer epoch {lowest}"
    return f"{legend}\nThe answer NLL was lowest at {name}, not at the last outer epoch, whose adapter this is."
