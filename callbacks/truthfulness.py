"""Multiple choice over the held-out items."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_warn

from isara_pl.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.evaluation.metrics import MultipleChoice
from isara_pl.evaluation.multiple_choice import choice_scores
from isara_pl.module import IsaraModule
from isara_pl.run_folder import run_folder


class TruthfulnessEvaluation(Callback):
    """Logs `mc1` and `mc2` over the held-out items at the end of every validation and test.

    Items need `incorrect_answers`; others are left out. The correct answers are `answer`, which is the
    best one, and `correct_answers`. The prompt is the very
    form that the model is fine-tuned in, without demonstrations (the `task` convention).

    Args:
        batch_size: Choices that are scored at once.

    Raises:
        InputError: If batch_size is below 1.
    """

    def __init__(self, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise InputError(f"TruthfulnessEvaluation: batch_size is {batch_size}; allowed: at least 1")
        self.batch_size = batch_size

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the items, unless this is Lightning's sanity check."""
        if not trainer.sanity_checking:
            self._evaluate(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the items."""
        self._evaluate(trainer, pl_module)

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without declaring it
        if not isinstance(data, IsaraDataModule) or not isinstance(pl_module, IsaraModule):
            raise InputError("TruthfulnessEvaluation needs IsaraModule and IsaraDataModule")
        items = [item for item in data.held_out if item.incorrect_answers]
        if run_folder(trainer) is None:
            items = items[:1]
        if not items:
            return
        correct = [(item.answer, *(text for text in item.correct_answers if text != item.answer)) for item in items]
        prompts, choices = [], []
        for item, right in zip(items, correct, strict=True):
            for answer in (*right, *item.incorrect_answers):
                prompts.append(data.prompt_format.answer_prompt(item.question))
                choices.append(data.prompt_format.answer_text(answer))
        with trainer.precision_plugin.forward_context():
            scores = iter(choice_scores(pl_module.adapted, pl_module.tokenizer, prompts, choices, self.batch_size))
        metric = MultipleChoice()
        for item, right in zip(items, correct, strict=True):
            metric.update([next(scores) for _ in right], [next(scores) for _ in item.incorrect_answers])
        figures = metric.compute()
        if figures["mc_not_finite"]:
            rank_zero_warn(f"{int(figures['mc_not_finite'])} items had a score that is not finite; they count as 0")
        pl_module.log_dict(figures, batch_size=len(items))
