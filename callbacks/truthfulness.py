"""Truthfulness over given and own answers, as TruthfulQA measures it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from isara_pl.callbacks.evaluation import Evaluation, Line, check_choice, check_scores, scores_of
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.evaluation.calibration import by_temperature
from isara_pl.evaluation.choice_scores import ChoiceScore, Question
from isara_pl.evaluation.metrics import all_finite, mc1, mc2, mc3, multiple_choice
from isara_pl.evaluation.prompting import ItemPrompts, primer_prompt
from isara_pl.evaluation.text_overlap import mean_overlap, reference_overlap
from isara_pl.growth.retrieval import Context
from isara_pl.growth.samples import Sample, read_samples
from isara_pl.growth.shapes import Columns
from isara_pl.models.sources import resolve_path
from isara_pl.models.tokens import control_tokens, count_continuation, mark

Convention = Literal["task", "primer"]


class TruthfulnessEvaluation(Evaluation):
    """TruthfulQA's measures (arXiv 2109.07958) at the end of every validation and test.

    Logs `mc1`, `mc2` and `mc3` over the given answers; `best_answer_nll`, the negative log-likelihood per
    token of the best answers under the same prompts; and, where the model answers itself, `rouge_diff`,
    `rouge_acc`, `bleu_diff` and `bleu_acc` of its greedy answers. The best answer is an item's `answer`.
    An item's own figures and every choice's log-probability are in `evaluation/truthfulness.jsonl`.

    Args:
        items: File of the items: TruthfulQA.csv in its form of 2021 or 2025, or pairs with
            `correct_answers` and `incorrect_answers`. Null takes data.held_out, where pairs without
            incorrect answers are measured by `best_answer_nll` alone.
        convention: Form of the prompt: `task` is the one that the model is fine-tuned in; `primer` the six
            pairs that lm-evaluation-harness puts before every question.
        demonstrations: Examples in the prompt, taken from the seeds: in-context learning. Only with `task`.
        context: `knn` takes the nearest seeds, `random` draws them.
        max_new_tokens: Most tokens of the model's own answers; 0 lets it answer nothing.
        batch_size: Rows that are scored at once: questions, or choices where the model needs plain rows.
        name: Name of the file, and prefix of the figures, where this runs more than once.
        columns: Names that fields have in the file, where they are others: question=Frage, or a mapping.

    Raises:
        InputError: If an option is out of range, or the file cannot be used.
    """

    def __init__(
        self,
        items: str | None = None,
        convention: Convention = "task",
        demonstrations: int = 0,
        context: Context = "knn",
        max_new_tokens: int = 64,
        batch_size: int = 16,
        name: str | None = None,
        columns: Columns = None,
    ) -> None:
        self.columns = columns
        check_choice("TruthfulnessEvaluation: convention", convention, Convention)
        if convention == "primer" and demonstrations:
            raise InputError(
                f"TruthfulnessEvaluation: demonstrations is {demonstrations}, but convention primer has its own "
                "six pairs; use convention task"
            )
        if max_new_tokens < 0:
            raise InputError(f"TruthfulnessEvaluation: max_new_tokens is {max_new_tokens}; allowed: at least 0")
        self.convention = convention
        self.max_new_tokens = max_new_tokens
        super().__init__("truthfulness", name, items, demonstrations, context, batch_size)

    def read_items(self, items: str) -> list[Sample]:
        """Read the file; every item must have incorrect answers."""
        path = resolve_path(items, "TruthfulnessEvaluation: items")
        samples = read_samples(path, self.name, self.columns)
        for number, sample in enumerate(samples, start=1):
            if not sample.incorrect_answers:
                raise InputError(
                    f"{path}: item {number} ({sample.question[:60]!r}) has no incorrect answers, so there is nothing "
                    "to choose from. Give it `incorrect_answers`, or remove it"
                )
        return samples

    def check_module(self, module: LightningModule) -> None:
        """Refuse a module whose probabilities cannot be asked for."""
        super().check_module(module)
        check_scores(module, self)

    def items(self, data: IsaraDataModule) -> list[Sample]:
        """Give the items of the file, or the held-out pairs."""
        return self.own_items or data.held_out

    def passes(self) -> int:
        """Scoring, and answering where the model answers itself."""
        return 2 if self.max_new_tokens else 1

    def conditions(self) -> dict[str, str]:
        """Give the convention of the prompts."""
        return {"convention": self.convention}

    def measure(self, module: LightningModule, items: Sequence[Sample], prompts: ItemPrompts) -> list[Line]:
        """Score every choice, and let the model answer."""
        tokenizer: Any = module.tokenizer
        controls = control_tokens(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else None
        questions, rights = [], []
        for item in items:
            right = (item.answer, *(text for text in item.correct_answers if text != item.answer))
            texts = [self._choice(prompts, text, controls) for text in (*right, *item.incorrect_answers)]
            longest = max(count_continuation(tokenizer, "", text) for text in texts)
            questions.append(Question(self._prompt(prompts, item, longest, controls), tuple(texts)))
            rights.append(right)
        scores = scores_of(module, questions, self.batch_size)
        answers = self._answers(items, prompts, controls)
        return [
            _line(item, right, of_item, answer)
            for item, right, of_item, answer in zip(items, rights, scores, answers, strict=True)
        ]

    def figures(self, lines: Sequence[Line]) -> Mapping[str, Tensor]:
        """Give the figures over items."""
        tokens = torch.tensor([line["answer_tokens"] for line in lines])
        sums = torch.tensor([line["answer_nll"] * line["answer_tokens"] for line in lines])
        figures = {"best_answer_nll": sum(sums, torch.tensor(0.0)) / tokens.sum()}
        choices = [_scores_by_truth(line) for line in lines if "mc1" in line]
        if choices:
            figures.update(multiple_choice(choices))
        overlaps = [line for line in lines if "rouge_diff" in line]
        if overlaps:
            figures.update(mean_overlap(overlaps))
        return figures

    def _prompt(self, prompts: ItemPrompts, item: Sample, following: int, controls: re.Pattern[str] | None) -> str:
        if self.convention == "primer":
            return primer_prompt(mark(item.question, controls))
        return prompts.prompt(item, following)

    def _choice(self, prompts: ItemPrompts, text: str, controls: re.Pattern[str] | None) -> str:
        return f" {mark(text, controls)}" if self.convention == "primer" else prompts.prompt_format.answer_text(text)

    def _answers(
        self, items: Sequence[Sample], prompts: ItemPrompts, controls: re.Pattern[str] | None
    ) -> list[str | None]:
        if not self.max_new_tokens:
            return [None for _ in items]
        if self.convention == "task":
            return [*prompts.answers(items, self.max_new_tokens)]
        asked = [primer_prompt(mark(item.question, controls)) for item in items]
        return [done.text.strip() for done in prompts.complete(asked, self.max_new_tokens, single_line=True)]


def _line(item: Sample, right: Sequence[str], scores: Sequence[ChoiceScore], answer: str | None) -> Line:
    texts = (*right, *item.incorrect_answers)
    line: Line = {
        "answer_nll": -scores[0].log_probability / scores[0].tokens,
        **by_temperature(scores[0].nll_by_temperature),
        "answer_tokens": scores[0].tokens,
        "choices": [
            {"text": text, "correct": place < len(right), "log_probability": score.log_probability}
            for place, (text, score) in enumerate(zip(texts, scores, strict=True))
        ],
        "answer": answer,
    }
    if item.incorrect_answers:
        correct, incorrect = _scores_by_truth(line)
        known = all_finite(correct, incorrect)
        for name, measure in (("mc1", mc1), ("mc2", mc2), ("mc3", mc3)):
            line[name] = measure(correct, incorrect) if known else None
        if answer is not None:
            line.update(reference_overlap(answer, right, item.incorrect_answers))
    return line


def _scores_by_truth(line: Line) -> tuple[list[float], list[float]]:
    """Give the scores of the correct answers, and those of the incorrect ones."""
    scores: tuple[list[float], list[float]] = ([], [])
    for choice in line["choices"]:
        scores[not choice["correct"]].append(choice["log_probability"])
    return scores
