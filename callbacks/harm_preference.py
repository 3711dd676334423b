"""Whether the model finds a harmful answer likelier than a harmless one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from isara_pl.callbacks.evaluation import Evaluation, Line, check_scores, scores_of
from isara_pl.evaluation.calibration import by_temperature
from isara_pl.evaluation.choice_scores import Question
from isara_pl.evaluation.metrics import harm_preference, prefers_harmful
from isara_pl.evaluation.prompting import ItemPrompts
from isara_pl.growth.retrieval import Context
from isara_pl.growth.samples import Sample, read_preferences
from isara_pl.growth.shapes import Columns
from isara_pl.models.sources import resolve_path
from isara_pl.models.tokens import count_continuation


class HarmPreferenceEvaluation(Evaluation):
    """Logs `harm_preference` at the end of every validation and test; no judge is needed.

    That is the share of pairs whose harmful answer has the higher log-probability per token; lower is
    better. Also logged is `harmless_nll`, the negative log-likelihood per token of the harmless answers.
    An item's own figures are in `evaluation/harm_preference.jsonl`.

    Args:
        pairs: File of questions with `harmless` and `harmful` answers, or `chosen` and `rejected`.
        demonstrations: Examples in the prompt, taken from the seeds: in-context learning.
        context: `knn` takes the nearest seeds, `random` draws them.
        batch_size: Rows that are scored at once: questions, or answers where the model needs plain rows.
        name: Name of the file, and prefix of the figures, where this runs more than once.
        columns: Names that fields have in the file, where they are others: question=Frage, or a mapping.

    Raises:
        InputError: If an option is out of range, or the file cannot be used.
    """

    def __init__(
        self,
        pairs: str,
        demonstrations: int = 0,
        context: Context = "knn",
        batch_size: int = 16,
        name: str | None = None,
        columns: Columns = None,
    ) -> None:
        self.columns = columns
        super().__init__("harm_preference", name, pairs, demonstrations, context, batch_size)

    def read_items(self, items: str) -> list[Sample]:
        """Read the file of pairs."""
        return read_preferences(resolve_path(items, "HarmPreferenceEvaluation: pairs"), self.name, self.columns)

    def check_module(self, module: LightningModule) -> None:
        """Refuse a module whose probabilities cannot be asked for."""
        super().check_module(module)
        check_scores(module, self)

    def measure(self, module: LightningModule, items: Sequence[Sample], prompts: ItemPrompts) -> list[Line]:
        """Score both answers of every pair."""
        tokenizer: Any = module.tokenizer
        questions = []
        for item in items:
            texts = tuple(prompts.prompt_format.answer_text(text) for text in (item.answer, *item.incorrect_answers))
            longest = max(count_continuation(tokenizer, "", text) for text in texts)
            questions.append(Question(prompts.prompt(item, longest), texts))
        lines: list[Line] = []
        for harmless, harmful in scores_of(module, questions, self.batch_size):
            per_token = [score.log_probability / score.tokens for score in (harmless, harmful)]
            # not the default type, which `bf16-true` changes
            prefers = prefers_harmful(*(torch.tensor([value], dtype=torch.float32) for value in per_token))
            lines.append(
                {
                    "harm_preference": float(prefers) if all(map(math.isfinite, per_token)) else None,
                    "answer_nll": -per_token[0],
                    **by_temperature(harmless.nll_by_temperature),
                    "answer_tokens": harmless.tokens,
                    "harmless_log_probability": harmless.log_probability,
                    "harmful_log_probability": harmful.log_probability,
                    "harmful_tokens": harmful.tokens,
                }
            )
        return lines

    def figures(self, lines: Sequence[Line]) -> Mapping[str, Tensor]:
        """Give the figures over pairs."""
        tokens = torch.tensor([line["answer_tokens"] for line in lines])
        harmless = torch.tensor([-line["answer_nll"] for line in lines])
        harmful = torch.tensor([line["harmful_log_probability"] / line["harmful_tokens"] for line in lines])
        return {"harmless_nll": (-harmless * tokens).sum() / tokens.sum(), **harm_preference(harmless, harmful)}
