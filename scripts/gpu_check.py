"""Prove and time everything that runs on a GPU, in one command of at most eight minutes.

Sections run one after the other, the most valuable first. One that fails is a row of the table, and the next one
runs; one that would begin too late is left out. The table comes at the end, the JSON after every row.

    python scripts/gpu_check.py --json gpu_check.json
    python scripts/gpu_check.py --device cpu --shape tiny     # tries the script itself
    python scripts/gpu_check.py --sections facts correctness
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported

import torch
import transformers
from gpu_evaluation import evaluation
from gpu_facts import correctness, facts
from gpu_generation import continuous, generation
from gpu_kernels import attention, drawing
from gpu_rows import Check, Row
from gpu_run import quickstart
from gpu_training import compiled, training, trl
from shapes import SHAPES

from isara_pl.errors import first_line


@dataclass(frozen=True)
class Section:
    """A part of the check.

    Attributes:
        run: Gives its rows as they are found.
        seconds: Most seconds that it may take.
    """

    run: Callable[[Check], Iterator[Row]]
    seconds: int


# the most valuable first
SECTIONS = {
    "facts": Section(facts, 60),
    "correctness": Section(correctness, 210),
    "generation": Section(generation, 200),
    "training": Section(training, 90),
    "quickstart": Section(quickstart, 160),
    "evaluation": Section(evaluation, 80),
    "compiled": Section(compiled, 90),
    "trl": Section(trl, 60),
    "attention": Section(attention, 30),
    "drawing": Section(drawing, 30),
    "continuous": Section(continuous, 90),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections and print the table.

    Args:
        arguments: In place of the process's own.

    Returns:
        1 if anything failed, else 0.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="On `cpu` sizes are tiny: it tries the script."
    )
    parser.add_argument("--shape", choices=SHAPES, default="llama-7b", help="The model that is timed.")
    parser.add_argument("--json", help="File for the rows, written after every one.")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=[*SECTIONS], help="Those to run, in order.")
    parser.add_argument("--budget", type=float, default=480, help="Seconds after which no section begins.")
    parser.add_argument(
        "--generation_tokens",
        type=lambda text: text if text == "auto" else int(text),
        default="auto",
        help="The engine's budget, as model.generation_tokens.",
    )
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA GPU here. `--device cpu --shape tiny` tries the script itself")
    quieten()
    torch.backends.cuda.enable_cudnn_sdp(False)  # as the command line does
    check = Check(given.device, given.shape, given.generation_tokens)
    rows: list[Row] = []
    try:
        run_sections(check, given.sections, given.budget, given.json, rows)
    except KeyboardInterrupt:
        rows.append(Row("failed", note="interrupted", failed=True))
    print(f"\n{given.shape} on {given.device}")
    print(table(rows))
    failed = [row for row in rows if row.failed]
    print(f"\n{len(failed)} failed" if failed else "\nnothing failed")
    return 1 if failed else 0


def quieten() -> None:
    """Let libraries say what is wrong and nothing else."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def run_sections(check: Check, names: Sequence[str], budget: float, path: str | None, rows: list[Row]) -> None:
    """Run sections until the time is over.

    Args:
        check: What they are told.
        names: Of `SECTIONS`, in order.
        budget: Seconds after which none begins.
        path: File for the rows so far; None writes none.
        rows: Is given each row as it is found.
    """
    began = time.perf_counter()

    def add(row: Row) -> None:
        rows.append(row)
        if path is not None:
            figures = {"device": check.device, "shape": check.shape, "rows": [asdict(row) for row in rows]}
            Path(path).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    for name in names:
        left = budget - (time.perf_counter() - began)
        if left <= 0:
            add(Row("left out: no time", section=name))
            continue
        since = time.perf_counter()
        guarded(check, name, left, add)
        with suppress(RuntimeError):  # a device that gave itself up frees nothing either
            check.free_memory()  # only here: an error held on to what was allocated
        seconds = time.perf_counter() - since
        add(Row("elapsed", seconds, "s", section=name))
        print(f"{name}: {seconds:.1f} s", flush=True)


def guarded(check: Check, name: str, left: float, add: Callable[[Row], None]) -> None:
    """Run one section; what it raises becomes a row."""
    section = SECTIONS[name]
    try:
        with at_most(min(section.seconds * check.patience, left)):
            for row in section.run(check):
                add(replace(row, section=name))
    except Exception as error:
        traceback.print_exc()
        add(Row("failed", note=f"{type(error).__name__}: {first_line(error)}", failed=True, section=name))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError inside the block after so many seconds, where the system has such an alarm."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done in {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(rows: Sequence[Row], width: int = 120) -> str:
    """Give rows as a table; notes are cut to its width, but not those of what failed."""
    wide = min(max(len(row.what) for row in rows), 46)
    lines = []
    for place, row in enumerate(rows):
        section = row.section if place == 0 or rows[place - 1].section != row.section else ""
        line = f"{section:11} {row.what[:wide]:{wide}} {figure(row.value):>12} {row.unit:8} "
        line = (line + ("FAILED " if row.failed else "") + row.note).rstrip()
        lines.append(line if len(line) <= width or row.failed else f"{line[: width - 1]}…")
    return "\n".join(lines)


def figure(value: float | str | None) -> str:
    """Give a figure as the table shows it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"
    return value or ""


if __name__ == "__main__":
    sys.exit(main())
