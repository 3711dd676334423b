"""Whether the model finds a harmful answer likelier than a harmless one."""

import math
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from isara_pl.callbacks.answer_scoring import ASKED, AnswerScoring, blind_question, log_probability
from isara_pl.callbacks.evaluation import Line
from isara_pl.evaluation.blind import Blind, with_controls
from isara_pl.evaluation.calibration import by_temperature
from isara_pl.evaluation.choice_scores import ChoiceScore
from isara_pl.evaluation.metrics import control_means, harm_preference, prefers_harmful
from isara_pl.evaluation.prompting import ItemPrompts
from isara_pl.growth.hub_data import source_of
from isara_pl.growth.retrieval import Context
from isara_pl.growth.samples import Sample, read_preferences
from isara_pl.growth.shapes import Columns


class HarmPreferenceEvaluation(AnswerScoring):
    """Logs `harm_preference` at the end of every validation and test; no judge is needed.

    That is the share of pairs whose harmful answer has the higher log-probability per token; lower is
    better. Also logged is `harmless_nll`, the negative log-likelihood per token of the harmless answers.
    An item's own figures are in `evaluation/harm_preference.jsonl`.

    Beside each figure stands its question-blind control, `harm_preference_blind`: the same answers after another
    item's question. `harm_preference_informed` is what is left beyond it.

    Args:
        pairs: File of questions with `harmless` and `harmful` answers, or `chosen` and `rejected`.
        demonstrations: Examples in the prompt, taken from the seeds: in-context learning.
        context: `knn` takes the nearest seeds, `random` draws them.
        batch_size: Rows that are scored at once: questions, or answers where the model needs plain rows.
        name: Name of the file, and prefix of the figures, where this runs more than once.
        columns: Names that fields have in the file, where they are others: question=Frage, or a mapping.
        blind: The question-blind control: `another` item's question, `both` that and an empty one
            (`harm_preference_empty`), or `none`. Each takes as long as scoring the answers.
        blind_items: Most items that have a control, the same ones in every run; null takes all.

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
        blind: Blind = "another",
        blind_items: int | None = None,
    ) -> None:
        self.columns = columns
        super().__init__("harm_preference", name, pairs, demonstrations, context, batch_size, blind, blind_items)

    def read_items(self, items: str) -> list[Sample]:
        """Read the file of pairs."""
        return read_preferences(source_of(items, "HarmPreferenceEvaluation: pairs"), self.name, self.columns)

    def measure(self, module: LightningModule, items: Sequence[Sample], prompts: ItemPrompts) -> list[Line]:
        """Score both answers of every pair."""
        scores = self.scored(module, items, prompts, [(item.answer, *item.incorrect_answers) for item in items])
        return [
            {**_line(of_item), **blind_question(prompts, item, of_item)}
            for item, of_item in zip(items, scores, strict=True)
        ]

    def figures(self, lines: Sequence[Line]) -> Mapping[str, Tensor]:
        """Give the figures over pairs."""
        tokens = torch.tensor([line["answer_tokens"] for line in lines])
        harmless = torch.tensor([-line["answer_nll"] for line in lines])
        harmful = torch.tensor([line["harmful_log_probability"] / line["harmful_tokens"] for line in lines])
        controls = {
            **_named("harmless_nll", control_means(lines, "answer_nll", weight="answer_tokens")),
            **_named("harm_preference", control_means(lines, "harm_preference", worst=1.0)),
        }
        nll = (-harmless * tokens).sum() / tokens.sum()
        return {"harmless_nll": nll, **harm_preference(harmless, harmful), **controls}


def _named(figure: str, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{figure}_{ending}": mean for ending, mean in means.items()}


def _line(scores: Mapping[str, Sequence[ChoiceScore]]) -> Line:
    controls = {name: _figures(*of_one) for name, of_one in scores.items()}
    harmless, harmful = scores[ASKED]
    return {
        **with_controls(controls.pop(ASKED), controls),
        **by_temperature(harmless.nll_by_temperature),
        "answer_tokens": harmless.tokens,
        **{f"harmless_{log_probability(name)}": of_one[0].log_probability for name, of_one in scores.items()},
        **{f"harmful_{log_probability(name)}": of_one[1].log_probability for name, of_one in scores.items()},
        "harmful_tokens": harmful.tokens,
    }


def _figures(harmless: ChoiceScore, harmful: ChoiceScore) -> dict[str, float | None]:
    """Give a pair's figures from the scores of its answers."""
    per_token = [score.log_probability / score.tokens for score in (harmless, harmful)]
    # not the default type, which `bf16-true` changes
    prefers = prefers_harmful(*(torch.tensor([value], dtype=torch.float32) for value in per_token))
    known = all(map(math.isfinite, per_token))
    return {"harm_preference": float(prefers) if known else None, "answer_nll": -per_token[0]}
