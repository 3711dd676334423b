"""A run folder: what its files hold, each of them read once, when it is first asked for."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from isara_pl.errors import InputError, first_line
from isara_pl.growth.pool import Rejected
from isara_pl.growth.samples import Sample
from isara_pl.results.answers import NAME as ANSWERS
from isara_pl.results.answers import Answered, answers_of
from isara_pl.results.items import FOLDER, Line, Touch, items_of, read_results, touches_of
from isara_pl.results.ledger import FILE as LEDGER
from isara_pl.results.ledger import LedgerRow, read_ledger
from isara_pl.results.metrics import FILE as METRICS
from isara_pl.results.metrics import Row, read_rows
from isara_pl.results.statistics import finite, weighted_mean
from isara_pl.run.conditions import read_conditions
from isara_pl.run.files import POOL, REJECTED, entries
from isara_pl.run.plan import TRAINED, read_plan

CONFIG = "config.yaml"
CONTAMINATION = "contamination"  # the evaluation whose lines are no items, but what samples touch of them

# what a run is a run of
PRETRAINED, ICL, SFT, SELF_GENERATION = "pretrained", "ICL", "SFT on the seeds", "self-generation"
SFT_OTHER, SFT_EARLY = "SFT on other pairs", "SFT on the seeds, early-stopped"
DISTILLATION, CONTROL = "distillation", "distillation, no demonstrations"
OF_SEEDS = (SFT, SFT_EARLY)
FITTED = (*OF_SEEDS, SFT_OTHER, SELF_GENERATION, DISTILLATION, CONTROL)
CLAIMED = (SELF_GENERATION, DISTILLATION)  # whether these help is what a comparison is for


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration; one that is missing has no options. Raises InputError if it cannot be read."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}). Restore it from a copy") from None
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{path}: holds no options. Expected a configuration: names with values, as in config.yaml")
    return values or {}


class Run:
    """What the files of a run folder hold, also while a process writes them; one that is missing holds nothing.

    Where a file is damaged, whoever asks for it first gets an `InputError` that names it, and the line if it has lines.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def samples(self) -> list[Sample]:
        """Seeds and accepted samples, in the order of the pool."""
        return list(entries(self.folder / POOL, Sample.from_json))

    @cached_property
    def rejected(self) -> list[Rejected]:
        """Rejected candidates, in the order of the run."""
        return list(entries(self.folder / REJECTED, Rejected.from_json))

    @cached_property
    def metrics(self) -> dict[int, Row]:
        """The rows of metrics.csv by outer epoch, without what is empty."""
        return read_rows(self.folder / METRICS)

    @cached_property
    def ledger(self) -> list[LedgerRow]:
        """The rows of ledger.csv."""
        return read_ledger(self.folder / LEDGER)

    @cached_property
    def config(self) -> dict[str, Any]:
        """All options of `fit`, in groups, as config.yaml has them."""
        return read_config(self.folder / CONFIG)

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """The options that the pool depends on, by their names with dots, such as `data.encoder`."""
        return _flat(read_conditions(self.folder))

    @cached_property
    def options(self) -> dict[str, Any]:
        """All options by their names with dots; what several files hold is of config.yaml, whose paths are absolute."""
        return {**self.conditions, **self.plan, **_flat(self.config)}

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What was to end the fit, by the names of the options, and how far it came."""
        return read_plan(self.folder)

    @cached_property
    def items(self) -> dict[str, list[Line]]:
        """The figures of every item by evaluation; what has none, such as the diversity of samples, is not here."""
        found = {path.stem: items_of(path, results) for path, results in self._results.items()}
        return {name: lines for name, lines in found.items() if lines}

    @cached_property
    def touches(self) -> dict[str, list[Touch]]:
        """The evaluation items that samples touch, by the id of the sample."""
        path = self.folder / FOLDER / f"{CONTAMINATION}.jsonl"
        return touches_of(path, self._results.get(path, []))

    @cached_property
    def answers(self) -> list[Answered]:
        """What the last model that was asked answered to held-out questions, the worst by NLL change first."""
        path = self.folder / FOLDER / f"{ANSWERS}.jsonl"
        return answers_of(path, self._results.get(path, []))

    @cached_property
    def _results(self) -> dict[Path, list[dict[str, Any]]]:
        return {path: read_results(path) for path in sorted((self.folder / FOLDER).glob("*.jsonl"))}

    @cached_property
    def kind(self) -> str:
        """What it is a run of, as far as its own files tell."""
        if self.conditions.get("model.objective") in ("distill", "sft+distill"):
            return CONTROL if self.conditions.get("data.teacher_demonstrations") == 0 else DISTILLATION
        if (self.folder / REJECTED).exists():  # written with the first candidates, even where none is rejected
            return SELF_GENERATION
        if self.trained_outer_epochs:
            return SFT_EARLY if self.conditions.get("best_epoch") is True else SFT
        return ICL if any(line.demonstrated for lines in self.items.values() for line in lines) else PRETRAINED

    @cached_property
    def trained_outer_epochs(self) -> set[int]:
        """Outer epochs that were measured after training."""
        return {line.outer_epoch for lines in self.items.values() for line in lines if line.outer_epoch > 0}

    def trained(self, outer_epoch: int) -> bool:
        """Whether an outer epoch was trained on to its end."""
        measured = self.metrics.get(outer_epoch, {}).get("trained_on") or outer_epoch in self.trained_outer_epochs
        return bool(measured) or 0 < outer_epoch <= (finite(self.plan.get(TRAINED)) or 0)

    def at(self, outer_epoch: int) -> dict[str, list[Line]]:
        """Give the items of an outer epoch, by evaluation."""
        return {name: [line for line in lines if line.outer_epoch == outer_epoch] for name, lines in self.items.items()}

    def last(self) -> dict[str, list[Line]]:
        """Give the items of the last outer epoch measured, by evaluation."""
        lasts = {name: max(line.outer_epoch for line in lines) for name, lines in self.items.items()}
        if any(lasts.values()):  # an evaluation of the pretrained model alone says nothing of the trained one
            lasts = {name: last for name, last in lasts.items() if last > 0}
        return {name: [line for line in self.items[name] if line.outer_epoch == last] for name, last in lasts.items()}

    def own_metrics(self) -> dict[int, Row]:
        """Give the rows of metrics.csv as the method has them: in-context learning, with demonstrations.

        Pairs are validated without any, so its answer NLL is that of an evaluation.
        """
        if self.kind != ICL:
            return self.metrics
        shown = [lines for lines in self.items.values() if any(line.demonstrated for line in lines)]
        nlls = [[line.figures["answer_nll"] for line in lines if "answer_nll" in line.figures] for lines in shown]
        own = next((weighted_mean(of_one) for of_one in nlls if of_one), None)
        validated = ("answer_nll", "validation_nll")
        return {
            outer_epoch: {
                **{name: figure for name, figure in row.items() if name not in validated},
                **({} if own is None else {"answer_nll": own}),
            }
            for outer_epoch, row in self.metrics.items()
        }


def measured_run(folder: Path) -> Run:
    """Give a run whose items have figures.

    Raises:
        InputError: If nothing was measured in it, or a file of its figures is damaged.
    """
    run = Run(folder)
    if not run.items:
        raise InputError(f"{folder}: no items in {FOLDER}/*.jsonl, so there is nothing to compare. Evaluate this run")
    return run


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring groups of options, such as `data`, to one level: all that is asked for stands there."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat
