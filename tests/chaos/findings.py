"""Compares what a killed run left on disk with what an undisturbed one left."""

import csv
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOURNALS = ("pool.jsonl", "rejected.jsonl")
ADAPTER = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json")
IDENTICAL = (*JOURNALS, *ADAPTER, "evaluation/truthfulness.jsonl")


@dataclass(frozen=True)
class Findings:
    """How a finished run differs from an undisturbed one.

    Attributes:
        problems: Every difference, in words.
        lost: Samples and rejected candidates that the undisturbed run has and this one lacks.
        duplicated: Samples and rejected candidates that stand in it more than once.
    """

    problems: list[str]
    lost: int
    duplicated: int


def after_kill(run_dir: Path, whole: Path, before: dict[str, bytes]) -> list[str]:
    """Find what must not be so at any moment: journals that say something else, or less than before.

    Args:
        run_dir: Folder of the killed run.
        whole: Folder of the undisturbed run.
        before: What `complete_lines` gave after the kill before it.
    """
    problems = []
    for name, now in complete_lines(run_dir).items():
        if not (whole / name).read_bytes().startswith(now):
            problems.append(f"{name} is not the beginning of the undisturbed run's")
        if len(_candidates(now)) < len(_candidates(before.get(name, b""))):
            problems.append(f"{name} has lost candidates that were on disk before")
    return problems


def complete_lines(run_dir: Path) -> dict[str, bytes]:
    """Give the journals without what a kill left of their last line."""
    contents = {name: run_dir / name for name in JOURNALS}
    found = {name: path.read_bytes() if path.exists() else b"" for name, path in contents.items()}
    return {name: content[: content.rfind(b"\n") + 1] for name, content in found.items()}


def at_end(run_dir: Path, whole: Path) -> Findings:
    """Compare a finished run with the undisturbed one.

    Args:
        run_dir: Folder of the run that was killed and resumed.
        whole: Folder of the undisturbed run.
    """
    problems = []
    identical = [*IDENTICAL, *(name for name in sorted(_files(whole)) if name.startswith("teacher/"))]
    for name in identical:
        if not (run_dir / name).exists():
            problems.append(f"{name} is missing")
        elif (run_dir / name).read_bytes() != (whole / name).read_bytes():
            problems.append(f"{name} differs")
    if _figures(run_dir) != _figures(whole):
        problems.append("metrics.csv differs")
    problems += [f"{name} is left over" for name in sorted(_files(run_dir) - _files(whole))]
    problems += [f"{name} is missing" for name in sorted(_files(whole) - _files(run_dir) - set(identical))]
    found, expected = _all_ids(run_dir), _all_ids(whole)
    return Findings(
        problems, lost=len(expected.keys() - found.keys()), duplicated=sum(count > 1 for count in found.values())
    )


def _all_ids(run_dir: Path) -> Counter[str]:
    journals = complete_lines(run_dir).values()
    return Counter(entry["id"] for journal in journals for entry in _entries(journal))


def _candidates(journal: bytes) -> list[str]:
    return [entry["id"] for entry in _entries(journal) if entry["outer_epoch"] > 0]


def _entries(journal: bytes) -> list[dict[str, Any]]:
    found = []
    for line in journal.split(b"\n")[:-1]:
        with suppress(ValueError):  # two lines in one, where a torn one was not cut off: both are lost
            found.append(json.loads(line))
    return found


def _figures(run_dir: Path) -> list[dict[str, str]]:
    """Give the rows of metrics.csv without what a clock measured."""
    if not (run_dir / "metrics.csv").exists():
        return []
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def _files(run_dir: Path) -> set[str]:
    """Give the names of all files but the logger's, which begins a folder at each start."""
    found = {path.relative_to(run_dir) for path in run_dir.rglob("*") if path.is_file()}
    return {str(path) for path in found if path.parts[0] != "logs"}
