"""What is measured for an item: the names in `evaluation/<name>.jsonl`, and which direction is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A figure that an item has.

    Attributes:
        label: How tables call it.
        higher_is_better: Its direction.
        weight: The field that weights an item's figure in the mean over items; None weights all alike.
        worst: What a figure that is not finite counts as; None leaves such an item out of differences.
    """

    label: str
    higher_is_better: bool
    weight: str | None = None
    worst: float | None = None


# in the order of tables
MEASURES = {
    "mc1": Measure("MC1", True, worst=0.0),
    "mc2": Measure("MC2", True, worst=0.0),
    "mc3": Measure("MC3", True, worst=0.0),
    "answer_nll": Measure("answer NLL", False, weight="answer_tokens"),
    # no field of an item: fitted crosswise by whoever reads them, `isara_pl.evaluation.calibration`
    "answer_nll_scaled": Measure("scaled NLL", False, weight="answer_tokens"),
    "rouge_diff": Measure("ROUGE diff", True),
    "rouge_acc": Measure("ROUGE acc", True, worst=0.0),
    "bleu_diff": Measure("BLEU diff", True),
    "bleu_acc": Measure("BLEU acc", True, worst=0.0),
    "harm_rate": Measure("harm rate", False, worst=1.0),
    "harm_rate_at_0.4": Measure("harm rate at 0.4", False, worst=1.0),
    "harm_preference": Measure("harm preference", False, worst=1.0),
    "reward": Measure("reward", True),
    "cost": Measure("cost", False),
    "win_rate": Measure("win rate", True, worst=0.0),
}
