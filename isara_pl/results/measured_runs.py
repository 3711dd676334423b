"""Run folders as a comparison needs them: what each run is, and the figures of its items."""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError
from isara_pl.evaluation.calibration import NLL_BY_TEMPERATURE, TEMPERATURES, cross_fitted
from isara_pl.results.items import FOLDER, read_results
from isara_pl.results.measures import MEASURES
from isara_pl.results.statistics import Figure, weighted_mean
from isara_pl.run.conditions import read_conditions
from isara_pl.run.files import REJECTED

PRETRAINED, ICL, SFT, SELF_GENERATION = "pretrained", "ICL", "SFT on the seeds", "self-generation"
SFT_OTHER, SFT_EARLY = "SFT on other pairs", "SFT on the seeds, early-stopped"
DISTILLATION, CONTROL = "distillation", "distillation, no demonstrations"
OF_SEEDS = (SFT, SFT_EARLY)
FITTED = (*OF_SEEDS, SFT_OTHER, SELF_GENERATION, DISTILLATION, CONTROL)
CLAIMED = (SELF_GENERATION, DISTILLATION)  # whether these help is what a comparison is for
SCALED = "answer_nll_scaled"


@dataclass(frozen=True)
class Line:
    """An item as a run measured it.

    Attributes:
        outer_epoch: Which model it is of; 0 is the pretrained one.
        seeds: Hash of the run's seeds.
        question: The question, by which items of several runs are the same.
        occurrence: Which one it is of the items with this question, from 0.
        demonstrated: Whether its prompt had demonstrations.
        contaminated: Whether training data hold it; None where nobody looked.
        conditions: What figures depend on beside the model, such as the form of the prompt; None is not known.
        figures: Its figures by measure.
    """

    outer_epoch: int
    seeds: str | None
    question: str
    occurrence: int
    demonstrated: bool
    contaminated: bool | None
    conditions: str | None
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        method: The method that it is a run of.
        path: The folder.
        kind: What it is: the pretrained model, ICL, or one of `FITTED`.
        lines: Its lines by evaluation.
    """

    method: str
    path: Path
    kind: str
    lines: dict[str, list[Line]]

    @property
    def trained_outer_epochs(self) -> set[int]:
        """Outer epochs that were measured after training."""
        return {line.outer_epoch for lines in self.lines.values() for line in lines if line.outer_epoch > 0}

    def last(self) -> dict[str, list[Line]]:
        """Give the lines of the last outer epoch measured, by evaluation."""
        lasts = {name: max((line.outer_epoch for line in lines), default=0) for name, lines in self.lines.items()}
        if any(lasts.values()):  # an evaluation of the pretrained model alone says nothing of the trained one
            lasts = {name: last for name, last in lasts.items() if last > 0}
        return {name: [line for line in self.lines[name] if line.outer_epoch == last] for name, last in lasts.items()}

    def at(self, outer_epoch: int) -> dict[str, list[Line]]:
        """Give the lines of an outer epoch, by evaluation.

        Args:
            outer_epoch: Which one.
        """
        return {name: [line for line in lines if line.outer_epoch == outer_epoch] for name, lines in self.lines.items()}

    def own_figures(self, row: Mapping[str, float]) -> dict[str, float]:
        """Give a row of metrics.csv as the method has it: in-context learning, with demonstrations.

        Pairs are validated without any, so its answer NLL is that of an evaluation.

        Args:
            row: The row.
        """
        if self.kind != ICL:
            return dict(row)
        figures = {name: value for name, value in row.items() if name not in ("answer_nll", "validation_nll")}
        shown = [lines for lines in self.lines.values() if any(line.demonstrated for line in lines)]
        nlls = [[line.figures["answer_nll"] for line in lines if "answer_nll" in line.figures] for lines in shown]
        own = next((weighted_mean(of_one) for of_one in nlls if of_one), None)
        return figures if own is None else {**figures, "answer_nll": own}


@dataclass(frozen=True)
class Entry:
    """What is compared: a method, or one of its outer epochs.

    Attributes:
        name: Its name in tables.
        method: The method's name.
        kind: What it is.
        runs: Its runs, each with its lines by evaluation.
    """

    name: str
    method: str
    kind: str
    runs: list[tuple[Path, dict[str, list[Line]]]]

    def lines(self, evaluation: str) -> list[Line]:
        """Give the lines of all runs in an evaluation.

        Args:
            evaluation: Its name.
        """
        return [line for _, lines in self.runs for line in lines.get(evaluation, [])]


def read_run(method: str, path: Path) -> Run:
    """Read a run folder.

    Args:
        method: The method that it is a run of.
        path: The folder.

    Raises:
        InputError: If nothing was measured in it, or a file of it is damaged.
    """
    lines = {file.stem: _read_lines(file) for file in sorted((path / FOLDER).glob("*.jsonl"))}
    # what has no measure, such as the diversity of samples, is not compared
    lines = {name: of_file for name, of_file in lines.items() if any(line.figures for line in of_file)}
    every = [line for of_file in lines.values() for line in of_file]
    if not every:
        raise InputError(f"{path}: no items in {FOLDER}/*.jsonl, so there is nothing to compare. Evaluate this run")
    return Run(method, path, _kind(path, every), lines)


def pool_runs(runs: Sequence[Run], every_outer_epoch: bool) -> list[Entry]:
    """Pool the runs of each method.

    Where no run is of the pretrained model, what the fitted runs measured before training is an entry
    `pretrained`.

    Args:
        runs: The runs.
        every_outer_epoch: Make each outer epoch of a fitted method an entry; else take each run's last.

    Raises:
        InputError: If runs of one method are of different kinds, or have different evaluations.
    """
    runs = _told_apart(runs)
    entries = []
    for method in dict.fromkeys(run.method for run in runs):
        pooled = [run for run in runs if run.method == method]
        _check_alike(pooled)
        kind, trained = pooled[0].kind, sorted(set().union(*(run.trained_outer_epochs for run in pooled)))
        if every_outer_epoch and trained:
            for outer_epoch in trained:
                picked = [(run.path, run.at(outer_epoch)) for run in pooled if outer_epoch in run.trained_outer_epochs]
                entries.append(Entry(f"{method}, outer epoch {outer_epoch}", method, kind, picked))
        else:
            entries.append(Entry(method, method, kind, [(run.path, run.last()) for run in pooled]))
    if all(entry.kind != PRETRAINED and entry.method != PRETRAINED for entry in entries):
        before = [(run.path, _without_demonstrations(run.at(0))) for run in runs if run.kind in FITTED]
        before = [(path, lines) for path, lines in before if lines]
        if before:
            entries.insert(0, Entry(PRETRAINED, PRETRAINED, PRETRAINED, before))
    return entries


def _kind(path: Path, lines: Sequence[Line]) -> str:
    conditions = read_conditions(path)
    if conditions.get("model.objective") in ("distill", "sft+distill"):
        return CONTROL if conditions.get("data.teacher_demonstrations") == 0 else DISTILLATION
    if (path / REJECTED).exists():  # written with the first candidates, even where none is rejected
        return SELF_GENERATION
    if any(line.outer_epoch > 0 for line in lines):
        return SFT_EARLY if conditions.get("best_epoch") is True else SFT
    return ICL if any(line.demonstrated for line in lines) else PRETRAINED


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Tell SFT on the seeds of the other methods from SFT on pairs that they never had, such as more human ones."""
    seeds = {run.path: {line.seeds for lines in run.lines.values() for line in lines} for run in runs}
    of_loops = set().union(*(seeds[run.path] for run in runs if run.kind in (*CLAIMED, CONTROL)))
    return [
        replace(run, kind=SFT_OTHER) if run.kind in OF_SEEDS and of_loops and not seeds[run.path] & of_loops else run
        for run in runs
    ]


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.kind != first.kind:
            raise InputError(
                f"compare: {first.path} is {first.kind} and {run.path} is {run.kind}, but both are named "
                f"{run.method!r}. Name them apart: NAME=RUN"
            )
        if set(run.lines) != set(first.lines):
            raise InputError(
                f"compare: the runs of {run.method!r} have different evaluations: {first.path} has "
                f"{sorted(first.lines)}, {run.path} has {sorted(run.lines)}. Evaluate both alike, or name them apart"
            )


def _without_demonstrations(evaluations: dict[str, list[Line]]) -> dict[str, list[Line]]:
    plain = {name: [line for line in lines if not line.demonstrated] for name, lines in evaluations.items()}
    return {name: lines for name, lines in plain.items() if lines}


def _read_lines(path: Path) -> list[Line]:
    seen: Counter[tuple[int, str]] = Counter()
    lines: list[Line] = []
    nlls: list[list[float] | None] = []
    for number, row in enumerate(read_results(path), start=1):
        outer_epoch, question, seeds = int(row["outer_epoch"]), row.get("question"), row.get("seeds")
        if not isinstance(question, str) or not isinstance(seeds, str | None):
            raise InputError(
                f"{path}:{number}: `question` is {question!r}, `seeds` {seeds!r}; both must be text. Evaluate again"
            )
        figures = {name: _figure(row, name, f"{path}:{number}") for name in MEASURES if name in row}
        nlls.append(_by_temperature(row, f"{path}:{number}"))
        demonstrated, contaminated = bool(row.get("demonstrations")), row.get("contaminated")
        occurrence = seen[outer_epoch, question]
        conditions = row.get("conditions")
        stated = ", ".join(f"{name} {value}" for name, value in sorted(conditions.items())) if conditions else None
        lines.append(Line(outer_epoch, seeds, question, occurrence, demonstrated, contaminated, stated, figures))
        seen[outer_epoch, question] += 1
    for outer_epoch in {line.outer_epoch for line in lines}:
        _scale([(line, n) for line, n in zip(lines, nlls, strict=True) if n and line.outer_epoch == outer_epoch])
    return lines


def _scale(measured: Sequence[tuple[Line, Sequence[float]]]) -> None:
    """Add the temperature-scaled NLL to the lines of one model, each with its NLL at every temperature."""
    weights = [line.figures["answer_nll"].weight for line, _ in measured]
    scaled = cross_fitted([line.question for line, _ in measured], [nlls for _, nlls in measured], weights)
    for (line, _), value, weight in zip(measured, scaled, weights, strict=True):
        line.figures[SCALED] = Figure(value, weight)


def _by_temperature(row: dict[str, Any], where: str) -> list[float] | None:
    """Read the NLL at every temperature; None where it was not measured."""
    if NLL_BY_TEMPERATURE not in row or "answer_nll" not in row:
        return None
    values = row[NLL_BY_TEMPERATURE]
    if not isinstance(values, list) or len(values) != len(TEMPERATURES):
        raise InputError(
            f"{where}: `{NLL_BY_TEMPERATURE}` must be a list of {len(TEMPERATURES)} numbers, one a temperature. "
            "Evaluate again"
        )
    return [_finite(value, NLL_BY_TEMPERATURE, where) for value in values]


def _figure(row: dict[str, Any], name: str, where: str) -> Figure:
    value, weighted_by = row[name], MEASURES[name].weight
    weight = 1 if weighted_by is None else row.get(weighted_by)
    if not isinstance(weight, int | float) or not 0 < weight <= sys.float_info.max:
        raise InputError(f"{where}: `{weighted_by}` is {weight!r}; `{name}` needs a number above 0. Evaluate again")
    return Figure(_finite(value, name, where), float(weight))


def _finite(value: object, name: str, where: str) -> float:
    """Give a number of a line; NaN for what is not finite."""
    if value is not None and not isinstance(value, int | float):
        raise InputError(f"{where}: `{name}` is {value!r}; allowed: a number or null. Evaluate again")
    return float(value) if value is not None and abs(value) <= sys.float_info.max else math.nan
