"""The measures as torchmetrics: they add up over batches and processes."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

from isara_pl.evaluation.multiple_choice import all_finite, mc1, mc2, mc3

AnyMetric = TypeVar("AnyMetric", bound=Metric)


def given_all(metric: AnyMetric) -> AnyMetric:
    """Give a metric that does not add up over processes, for where each of them has all items.

    Args:
        metric: The metric, which is changed.
    """
    metric.distributed_available_fn = lambda: False
    return metric


class AnswerNLL(Metric):
    """Mean negative log-likelihood of an answer token, in nats: Σ nll ÷ Σ tokens over all answers.

    The end-of-sequence token is not counted: a pretrained model ends an answer in another way.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("tokens", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, sums: Tensor, tokens: Tensor) -> None:
        """Add answers.

        Args:
            sums: Summed negative log-likelihood of each answer, shape (n,).
            tokens: Tokens of each answer, shape (n,).
        """
        self.total = self.total + sums.sum()
        self.tokens = self.tokens + tokens.sum()

    def compute(self) -> Tensor:
        """Give the mean per token."""
        return self.total / self.tokens


class MultipleChoice(Metric):
    """Mean MC1, MC2 and MC3 over items, and how many items had a score that was not finite."""

    full_state_update = False
    higher_is_better = True
    mc1: Tensor
    mc2: Tensor
    mc3: Tensor
    items: Tensor
    not_finite: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("mc1", "mc2", "mc3"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("items", "not_finite"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, correct: Sequence[float], incorrect: Sequence[float]) -> None:
        """Add an item.

        Args:
            correct: Scores of its correct answers, the best answer first.
            incorrect: Scores of its incorrect answers.
        """
        self.mc1 = self.mc1 + mc1(correct, incorrect)
        self.mc2 = self.mc2 + mc2(correct, incorrect)
        self.mc3 = self.mc3 + mc3(correct, incorrect)
        self.items = self.items + 1
        self.not_finite = self.not_finite + int(not all_finite(correct, incorrect))

    def compute(self) -> dict[str, Tensor]:
        """Give `mc1`, `mc2`, `mc3` and `mc_not_finite` (a count)."""
        return {
            "mc1": (self.mc1 / self.items).float(),
            "mc2": (self.mc2 / self.items).float(),
            "mc3": (self.mc3 / self.items).float(),
            "mc_not_finite": self.not_finite.float(),
        }
