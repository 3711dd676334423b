"""How helpful a reward model finds the model's answers, or how costly a cost model."""

from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from isara_pl.callbacks.evaluation import Evaluation, Line
from isara_pl.datamodule.growing import pretrained_state
from isara_pl.errors import InputError
from isara_pl.evaluation.judges import Judge, judge_name, judged
from isara_pl.evaluation.metrics import reward, wins
from isara_pl.evaluation.prompting import ItemPrompts
from isara_pl.growth.hub_data import source_of
from isara_pl.growth.retrieval import Context
from isara_pl.growth.samples import Sample, read_questions
from isara_pl.growth.shapes import Columns


class RewardEvaluation(Evaluation):
    """Logs the mean score of the model's greedy answers, and how often they beat the pretrained model's.

    Logged are `reward` and `reward_win_rate` (or `cost` and `cost_win_rate`); a tie counts half. The
    pretrained model answers the same prompts, with the same demonstrations. Every answer with its score is in
    `evaluation/reward.jsonl` (or `cost.jsonl`).

    Args:
        prompts: File of the questions that are answered.
        judge: A reward model.
        lower_is_better: Whether it is a cost model, such as beaver's; the figure is then called `cost`.
        max_new_tokens: Most tokens of an answer.
        demonstrations: Examples in the prompt, taken from the seeds: in-context learning.
        context: `knn` takes the nearest seeds, `random` draws them.
        name: Name of the file, and prefix of the figures, where this runs more than once.
        columns: Names that fields have in the file, where they are others: question=Frage, or a mapping.

    Raises:
        InputError: If an option is out of range, or the file cannot be used.
    """

    def __init__(
        self,
        prompts: str,
        judge: Judge,
        lower_is_better: bool = False,
        max_new_tokens: int = 128,
        demonstrations: int = 0,
        context: Context = "knn",
        name: str | None = None,
        columns: Columns = None,
    ) -> None:
        self.columns = columns
        if max_new_tokens < 1:
            raise InputError(f"RewardEvaluation: max_new_tokens is {max_new_tokens}; allowed: at least 1")
        self.judge = judge
        self.lower_is_better = lower_is_better
        self.figure = "cost" if lower_is_better else "reward"
        self.max_new_tokens = max_new_tokens
        self._pretrained: dict[str, float] = {}
        super().__init__(self.figure, name, prompts, demonstrations, context)

    def read_items(self, items: str) -> list[Sample]:
        """Read the file of questions."""
        return read_questions(source_of(items, "RewardEvaluation: prompts"), self.name, self.columns)

    def conditions(self) -> dict[str, str]:
        """Give the judge."""
        return {"judge": judge_name(self.judge)}

    def steps(self, items: Sequence[Sample], others: Mapping[str, Sample]) -> int:
        """Answering, and once a run the pretrained model's answering."""
        return len(items) * (1 if self._pretrained else 2)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the answers of another pretrained model."""
        super().setup(trainer, pl_module, stage)
        self._pretrained = {}

    def check_module(self, module: LightningModule) -> None:
        """Refuse a module that has no pretrained state."""
        super().check_module(module)
        if not hasattr(module, "pretrained"):
            raise InputError(
                f"{type(self).__name__} compares with the answers of the pretrained model, and "
                f"{type(module).__name__} has no method pretrained(): a context manager inside which the module is "
                "as it was before any training. Give it one, or use IsaraModule"
            )

    def measure(self, module: LightningModule, items: Sequence[Sample], prompts: ItemPrompts) -> list[Line]:
        """Answer every question, let the judge score the answers, and compare with the pretrained model's."""
        answers = prompts.answers(items, self.max_new_tokens)
        questions = [item.question for item in items]
        scores = judged(self.judge, module.device, questions, answers)[:, 0]
        if not self._pretrained:  # the same for the whole run
            with pretrained_state(module, "what RewardEvaluation compares with")():
                before = prompts.answers(items, self.max_new_tokens)
            reference = judged(self.judge, module.device, questions, before)[:, 0]
            self._pretrained = dict(zip((item.id for item in items), reference.tolist(), strict=True))
        # not the default type, which `bf16-true` changes
        reference = torch.tensor([self._pretrained[item.id] for item in items], dtype=torch.float32)
        won = wins(scores, reference, self.lower_is_better)
        known = (scores.isfinite() & reference.isfinite()).tolist()
        return [
            {self.figure: score, "win_rate": win if both else None, "pretrained_score": before, "answer": answer}
            for score, win, both, before, answer in zip(
                scores.tolist(), won.tolist(), known, reference.tolist(), answers, strict=True
            )
        ]

    def figures(self, lines: Sequence[Line]) -> Mapping[str, Tensor]:
        """Give the figures over questions."""
        scores = torch.tensor([line[self.figure] for line in lines])
        pretrained = torch.tensor([line["pretrained_score"] for line in lines])
        figures = reward(scores, pretrained, self.figure, self.lower_is_better)
        figures[f"{self.figure}_win_rate"] = figures.pop("win_rate")  # a cost model may run beside a reward model
        return figures
