"""What a harness measured: a figure of a task, by item where it tells, as lines of `evaluation/` of a run folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isara_pl.export.merged_model import PlainModel
from isara_pl.results.items import HARNESS_LOSS, HARNESS_SCORE
from isara_pl.results.statistics import Figure, Unit

_ROUNDING = 1e-6  # relative; harnesses add up in other orders


@dataclass(frozen=True)
class Item:
    """An item of a task.

    Attributes:
        id: Unique in the task.
        question: What the model was given, by which items of several runs are the same.
        figure: Its own figure.
    """

    id: str
    question: str
    figure: float


@dataclass(frozen=True)
class Scored:
    """A figure of a task.

    Attributes:
        harness: The harness.
        task: The task, or a group of tasks.
        metric: What was measured.
        value: The figure, as the harness gives it.
        higher_is_better: Its direction.
        count: Items that it is of.
        items: The figures of the items; none where the figure is not their mean.
        conditions: What it depends on beside the model.
    """

    harness: str
    task: str
    metric: str
    value: float
    higher_is_better: bool
    count: int
    items: Sequence[Item]
    conditions: dict[str, str]

    @property
    def name(self) -> str:
        """The name of its file in `evaluation/`."""
        return re.sub(r"[^\w.-]+", "-", f"{self.harness}_{self.task}_{self.metric}")

    def lines(self) -> list[dict[str, Any]]:
        """Give one line an item; where there are no figures of items, one line for them all."""
        measure = HARNESS_SCORE if self.higher_is_better else HARNESS_LOSS
        whole = Item(self.task, f"{self.task}: all {self.count} items together", self.value)
        return [
            {"id": item.id, "question": item.question, "conditions": self.conditions, measure: item.figure}
            for item in self.items or [whole]
        ]

    def units(self) -> dict[Unit, Figure]:
        """Give the figures of the items, by which those of two models are paired."""
        return {(None, item.question, place): Figure(item.figure) for place, item in enumerate(self.items)}


class Harness(Protocol):
    """Measures a model."""

    def measure(self, model: PlainModel) -> list[Scored]:
        """Give every figure of every task. Raises InputError where a task cannot be measured."""


def of_items(value: float, items: Sequence[Item]) -> Sequence[Item]:
    """Give the items if a figure is the mean of theirs, else none: then they do not tell what it is worth."""
    if not items:
        return []
    mean = float(np.mean([item.figure for item in items]))
    return items if np.isclose(mean, value, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True) else []
