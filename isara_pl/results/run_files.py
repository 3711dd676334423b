"""What the files of a run folder hold. Only pool.jsonl must be there, and a process may be writing them."""

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isara_pl.errors import InputError, first_line
from isara_pl.growth.pool import Rejected, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.results import items as results
from isara_pl.results import ledger, metrics
from isara_pl.results.items import read_results
from isara_pl.results.ledger import Spent, Totals
from isara_pl.results.measured_runs import Run, read_run
from isara_pl.results.measures import MEASURES
from isara_pl.run import conditions
from isara_pl.run.files import POOL, REJECTED, entries

CONFIG = "config.yaml"
CONTAMINATION = "contamination.jsonl"


@dataclass(frozen=True)
class Touch:
    """An evaluation item that a sample touches.

    Attributes:
        item: Id of the item.
        item_question: The item's question.
        kind: How, as of `isara_pl.evaluation.contamination.Contact`.
        figure: How much, as there.
    """

    item: str
    item_question: str
    kind: str
    figure: float


@dataclass(frozen=True)
class RunFiles:
    """What the files of a run folder hold.

    Attributes:
        title: Name of the folder.
        samples: Seeds and accepted samples.
        rejected: Rejected candidates.
        metrics: The rows of metrics.csv by outer epoch, without what is empty.
        spent: What each stage took.
        totals: What each outer epoch took.
        measured: The figures of every item; None where nothing was measured.
        touches: Evaluation items that samples touch, by the id of the sample.
        options: All options by their names with dots, such as `data.outer_epochs`.
        conditions: Those that the pool depends on.
    """

    title: str
    samples: list[Sample]
    rejected: list[Rejected]
    metrics: Mapping[int, Mapping[str, float]]
    spent: list[Spent]
    totals: list[Totals]
    measured: Run | None
    touches: dict[str, list[Touch]]
    options: dict[str, Any]
    conditions: dict[str, Any]

    def trained(self, outer_epoch: int) -> bool:
        """Whether an outer epoch was trained on to its end.

        Args:
            outer_epoch: Which one.
        """
        measured = self.measured.trained_outer_epochs if self.measured else set()
        return bool(self.metrics.get(outer_epoch, {}).get("trained_on")) or outer_epoch in measured


def read_run_files(run_dir: Path) -> RunFiles:
    """Read a run folder.

    Args:
        run_dir: The folder.

    Raises:
        InputError: If it has no pool, or a file is damaged.
    """
    if not (run_dir / POOL).exists():
        runs = sorted(str(path.parent) for path in run_dir.glob(f"*/{POOL}"))
        inside = f" These folders inside of it have one: {', '.join(runs[:5])}." if runs else ""
        raise InputError(f"{run_dir}: no {POOL}.{inside} A report needs the folder of a run of `isara-pl fit`")
    title = run_dir.resolve().name
    spent, totals = _ledger(run_dir / ledger.FILE)
    return RunFiles(
        title=title,
        samples=list(entries(run_dir / POOL, lambda line: _sample(json.loads(line)))),
        rejected=list(entries(run_dir / REJECTED, _rejected)),
        metrics=read_metrics(run_dir),
        spent=spent,
        totals=totals,
        measured=read_run(title, run_dir) if _is_measured(run_dir) else None,
        touches=_touches(run_dir / results.FOLDER / CONTAMINATION),
        options=options_of(run_dir),
        conditions=_options(run_dir / conditions.FILE, json.loads),
    )


def options_of(run_dir: Path) -> dict[str, Any]:
    """Give the options of a run by their names with dots, as far as its files hold them.

    Args:
        run_dir: The run folder.

    Raises:
        InputError: If a file is damaged.
    """
    # of config.yaml, whose paths are absolute, what both hold
    return {**_options(run_dir / conditions.FILE, json.loads), **_options(run_dir / CONFIG, yaml.safe_load)}


def read_metrics(run_dir: Path) -> Mapping[int, Mapping[str, float]]:
    """Read metrics.csv.

    Args:
        run_dir: The run folder.

    Returns:
        The rows by outer epoch, without what is empty.

    Raises:
        InputError: If it is damaged.
    """
    try:
        return metrics.read_rows(run_dir / metrics.FILE)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run_dir / metrics.FILE}: damaged ({error}). Remove it, or restore it from a copy") from None


def _sample(values: Mapping[str, Any]) -> Sample:
    """Make a sample of a line; a field that is of another kind than ours is a damage."""
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    scores = fields.get("scores", {}).items()
    fields["scores"] = {name: figure for name, score in scores if (figure := finite(score)) is not None}
    sample = Sample(**fields)
    texts = (sample.id, sample.question, sample.answer, sample.category or "")
    demonstrations = (*sample.question_demonstrations, *sample.answer_demonstrations)
    if not all(isinstance(text, str) for text in (*texts, *demonstrations)) or not isinstance(sample.outer_epoch, int):
        raise TypeError("a field is of another kind than it should be")
    return sample


def _rejected(line: str) -> Rejected:
    values = json.loads(line)
    taken_by, reason, figure = values.pop("filter"), values.pop("reason"), values.pop("figure")
    if not isinstance(taken_by, str) or not isinstance(reason, str):
        raise TypeError("`filter` and `reason` must be text")
    return Rejected(_sample(values), taken_by, Verdict(figure, reason))


def _ledger(path: Path) -> tuple[list[Spent], list[Totals]]:
    if not path.exists():
        return [], []
    spent, totals = [], []
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                if row["stage"] == ledger.ALL:
                    totals.append(_totals(row))
                else:
                    spent.append(_spent(row))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}:{line}: damaged line ({error!r}). Restore it from a copy") from None
    return spent, totals


def _spent(row: Mapping[str, str]) -> Spent:
    return Spent(
        outer_epoch=int(row["outer_epoch"]),
        stage=row["stage"],
        wall_seconds=_known(row["wall_seconds"]) or 0.0,
        cpu_seconds=_known(row["cpu_seconds"]) or 0.0,
        prompt_tokens=int(row["prompt_tokens"] or 0),
        generated_tokens=int(row["generated_tokens"] or 0),
        flops=_known(row["flops"]) or 0.0,
        peak_memory_bytes=int(row["peak_memory_bytes"] or 0),
        samples=int(row["samples"] or 0),
        cost=_known(row["cost"]),
    )


def _totals(row: Mapping[str, str]) -> Totals:
    return Totals(
        outer_epoch=int(row["outer_epoch"]),
        wall_seconds=_known(row["wall_seconds"]) or 0.0,
        cost=_known(row["cost"]),
        seconds_per_accepted=_known(row["seconds_per_accepted"]),
        cost_per_accepted=_known(row["cost_per_accepted"]),
        break_even_queries=_known(row["break_even_queries"]),
    )


def _known(text: str) -> float | None:
    return finite(float(text)) if text else None


def finite(value: Any) -> float | None:
    """Give a number that is finite, and None for anything else.

    Args:
        value: What a file holds.
    """
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _is_measured(run_dir: Path) -> bool:
    """Whether any file has figures of items; those of the diversity or contamination of samples are none."""
    return any(
        not MEASURES.keys().isdisjoint(line)
        for file in sorted((run_dir / results.FOLDER).glob("*.jsonl"))
        for line in read_results(file)
    )


def _touches(path: Path) -> dict[str, list[Touch]]:
    """Give the contacts that any outer epoch found; each finds those of the earlier ones again."""
    found: dict[tuple[str, str], Touch] = {}
    for number, line in enumerate(read_results(path) if path.exists() else [], start=1):
        try:
            figure = finite(line["by"]) or 0.0
            found[line["sample"], line["id"]] = Touch(line["id"], str(line["question"]), str(line["kind"]), figure)
        except KeyError as error:
            raise InputError(
                f"{path}:{number}: damaged line (no {error}). Evaluate again, or remove the file"
            ) from None
    of_samples: dict[str, list[Touch]] = {}
    for (sample, _), touch in found.items():
        of_samples.setdefault(sample, []).append(touch)
    return of_samples


def _options(path: Path, read: Callable[[str], Any]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        values = read(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}). Restore it from a copy, or remove it") from None
    return _flat(values) if isinstance(values, dict) else {}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring groups of options, such as `data`, to one level: all that is asked for stands there."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat
