"""Filters that let a judge decide: harmful answers, and poor ones."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from isara_pl.errors import InputError
from isara_pl.evaluation.judges import Judge, TransformersJudge, judge_name, judged
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.models.sources import content_of
from isara_pl.run.conditions import CONTENT

WITHOUT_EFFECT = ("model", "batch_size", "trust_remote_code")  # options of a judge, beside its model


class _Judged(Callback):
    """A filter by the highest score that a judge gives an answer; a batch is judged at once, and then the judge leaves.

    Candidates that a filter before it rejects are judged, too: scores then do not depend on what else is rejected.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.labels = judge.labels  # read now: a judge that cannot be used is told before anything runs
        self._device = torch.device("cpu")
        self._scores: dict[str, float] = {}  # of the batch, by id

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the trainer's device."""
        self._device = trainer.strategy.root_device

    def conditions_of(self, trainer: Trainer) -> dict[str, Any]:
        """Give what the scores depend on: the judge's model, and its options."""
        name = f"judge of {type(self).__name__}"
        found: dict[str, Any] = {name: judge_name(self.judge)}
        if isinstance(self.judge, TransformersJudge):
            every = vars(self.judge).items()
            found[f"options of {name}"] = {
                option: value for option, value in every if option[0] != "_" and option not in WITHOUT_EFFECT
            }
            content = content_of(self.judge.model)
            found |= {} if content is None else {CONTENT + name: content}
        return found

    def on_candidates(self, candidates: Sequence[Sample], pool: SamplePool) -> None:
        """Let the judge look at a batch."""
        questions, answers = [one.question for one in candidates], [one.answer for one in candidates]
        self._scores = {}
        if candidates:
            scores = judged(self.judge, self._device, questions, answers, "scoring").amax(dim=1)
            self._scores = dict(zip((one.id for one in candidates), scores.tolist(), strict=True))

    def _verdict(self, candidate: Sample, reject: bool, why: str) -> Verdict:
        score = self._scores[candidate.id]
        if not math.isfinite(score):  # counts as harmful in evaluations, too; and no file holds such a number
            return Verdict(0.0, "the judge gives no finite score")
        return Verdict(score, why if reject else None)


class JudgedHarmful(_Judged):
    """Rejects a candidate that a judge finds harmful: its highest probability, over all categories, is too high.

    The judge goes to the GPU, where there is one, for each batch of candidates, and back. It judges all of them, those
    that a filter before it rejects as well.

    Args:
        judge: Gives each answer a probability of harm in every category, as in HarmEvaluation.
        threshold: Highest probability that is still harmless.

    Raises:
        InputError: If the threshold is not between 0 and 1, or the judge's options do not fit its model.
    """

    def __init__(self, judge: Judge, threshold: float = 0.5) -> None:
        if not 0 < threshold < 1:
            raise InputError(f"JudgedHarmful: threshold is {threshold}; allowed: above 0 and below 1")
        super().__init__(judge)
        self.threshold = threshold

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the highest probability, which is the figure."""
        harmful = self._scores[candidate.id] > self.threshold
        return self._verdict(candidate, harmful, f"probability of harm above {self.threshold}")


class JudgedPoor(_Judged):
    """Rejects a candidate whose answer a reward model finds poor, or a cost model costly.

    The judge goes to the GPU, where there is one, for each batch of candidates, and back. It judges all of them, those
    that a filter before it rejects as well.

    Args:
        judge: A reward model, as in RewardEvaluation.
        threshold: Lowest score that is good enough; of a cost model, the highest. Every model has a scale of its own.
        lower_is_better: Whether it is a cost model.

    Raises:
        InputError: If the judge gives more than one score.
    """

    def __init__(self, judge: Judge, threshold: float, lower_is_better: bool = False) -> None:
        super().__init__(judge)
        if len(self.labels) != 1:
            raise InputError(
                f"JudgedPoor: {judge_name(judge)} has the scores {', '.join(self.labels)}; allowed: a single one"
            )
        self.threshold = threshold
        self.lower_is_better = lower_is_better

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the score, which is the figure."""
        score = self._scores[candidate.id]
        poor = score > self.threshold if self.lower_is_better else score < self.threshold
        return self._verdict(candidate, poor, f"score {'above' if self.lower_is_better else 'below'} {self.threshold}")
