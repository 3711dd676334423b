"""What the terminal shows when a run has ended: its figures, how to read them, and where everything lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from isara_pl.report.metrics import LAST, Row, format_table, read_rows

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


def ending(run_dir: Path, baselines: Sequence[tuple[str, Path]]) -> str:
    """Give what is shown at the end of a run.

    Args:
        run_dir: The run folder.
        baselines: Names and folders of the runs that it is compared with.
    """
    rows = read_rows(run_dir / "metrics.csv")
    of_baselines = {name: read_rows(path / "metrics.csv") for name, path in baselines}
    last = {name: of_one[max(of_one)] for name, of_one in of_baselines.items() if of_one}
    files = [f"{run_dir / name}: {meaning}" for name, meaning in FILES.items() if (run_dir / name).exists()]
    return "\n".join(["", format_table(rows, last), reading(rows), "", *files])


def reading(rows: Mapping[int, Row]) -> str:
    """Say in a line or two what the table shows, also where it is not what one hoped for.

    Args:
        rows: The rows of metrics.csv by outer epoch.
    """
    if not any(name not in ("outer_epoch", *LAST) for row in rows.values() for name in row):
        return "No held-out pairs were given (--data.held_out), so nothing here shows whether this run helped."
    measured = {outer_epoch: row["answer_nll"] for outer_epoch, row in rows.items() if "answer_nll" in row}
    if not measured:
        return "metrics.csv holds every figure; `python -m isara_pl compare` tells what a difference is worth."
    legend = "answer NLL: per held-out answer token, lower is better. MC2: in 0 to 1, higher is better."
    lowest = min(measured, key=lambda outer_epoch: measured[outer_epoch])
    if lowest == max(measured):
        return legend
    name = "the pretrained model" if lowest == 0 else f"outer epoch {lowest}"
    return f"{legend}\nThe answer NLL was lowest at {name}, not at the last outer epoch, whose adapter this is."
