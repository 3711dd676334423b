"""Truthfulness over given and own answers, as TruthfulQA measures it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from isara_pl.callbacks.answer_scoring import ASKED, AnswerScoring, blind_question, log_probability
from isara_pl.callbacks.evaluation import Line, check_choice
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.evaluation.binary import LETTERS, binary, orders
from isara_pl.evaluation.blind import INFORMED, Blind, with_controls
from isara_pl.evaluation.calibration import by_temperature
from isara_pl.evaluation.choice_scores import ChoiceScore
from isara_pl.evaluation.metrics import all_finite, control_means, mc1, mc2, mc3, multiple_choice
from isara_pl.evaluation.prompting import AnswerFormat, ItemPrompts, PrimerFormat
from isara_pl.evaluation.text_overlap import mean_overlap, reference_overlap
from isara_pl.growth.hub_data import source_of
from isara_pl.growth.retrieval import Context
from isara_pl.growth.samples import Sample, read_samples
from isara_pl.growth.shapes import Columns
from isara_pl.models.tokens import control_tokens

Convention = Literal["task", "primer"]
MULTIPLE_CHOICE = {"mc1": mc1, "mc2": mc2, "mc3": mc3}


class TruthfulnessEvaluation(AnswerScoring):
    """TruthfulQA's measures (arXiv 2109.07958) at the end of every validation and test.

    Logs `mc1`, `mc2` and `mc3` over the given answers; `binary`, how often the model chooses the best answer
    where that and the best incorrect one are shown, in both orders, over the items that say which that is or
    have one alone; `best_answer_nll`, the negative log-likelihood per token of the best answers under the same
    prompts; and, where the model answers itself, `rouge_diff`, `rouge_acc`, `bleu_diff` and `bleu_acc` of its
    greedy answers. The best answer is an item's `answer`. An item's own figures and every choice's
    log-probability are in `evaluation/truthfulness.jsonl`.

    Beside each figure over given answers stands its question-blind control, `mc2_blind`: the same answers after
    another item's question. `mc2_informed` and `best_answer_nll_informed` are what is left beyond it.

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
        blind: The question-blind control: `another` item's question, `both` that and an empty one
            (`mc2_empty`), or `none`. Each takes as long as scoring the answers.
        blind_items: Most items that have a control, the same ones in every run; null takes all.

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
        blind: Blind = "another",
        blind_items: int | None = None,
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
        super().__init__("truthfulness", name, items, demonstrations, context, batch_size, blind, blind_items)

    def read_items(self, items: str) -> list[Sample]:
        """Read the file; every item must have incorrect answers."""
        path = source_of(items, "TruthfulnessEvaluation: items")
        samples = read_samples(path, self.name, self.columns)
        for number, sample in enumerate(samples, start=1):
            if not sample.incorrect_answers:
                raise InputError(
                    f"{path}: item {number} ({sample.question[:60]!r}) has no incorrect answers, so there is nothing "
                    "to choose from. Give it `incorrect_answers`, or remove it"
                )
        return samples

    def items(self, data: IsaraDataModule) -> list[Sample]:
        """Give the items of the file, or the held-out pairs."""
        return self.own_items or data.held_out

    def steps(self, items: Sequence[Sample], others: Mapping[str, Sample]) -> int:
        """Scoring, of the binary choice in both orders, and answering where the model answers itself."""
        choosing = [item for item in items if _best_incorrect(item) is not None]
        return super().steps([*items, *choosing, *choosing], others) + len(items) * bool(self.max_new_tokens)

    def conditions(self) -> dict[str, str]:
        """Give the convention of the prompts."""
        return {"convention": self.convention}

    def prompt_format(self, data: IsaraDataModule, module: LightningModule) -> AnswerFormat:
        """Give that of the convention."""
        if self.convention == "task":
            return super().prompt_format(data, module)
        tokenizer: Any = getattr(module, "tokenizer", None)
        return PrimerFormat(control_tokens(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else None)

    def measure(self, module: LightningModule, items: Sequence[Sample], prompts: ItemPrompts) -> list[Line]:
        """Score every choice, and let the model answer."""
        rights = [(item.answer, *(text for text in item.correct_answers if text != item.answer)) for item in items]
        texts = [(*right, *item.incorrect_answers) for item, right in zip(items, rights, strict=True)]
        scores = self.scored(module, items, prompts, texts)
        choices = self._choices(module, items, prompts)
        answers: Sequence[str | None] = [None for _ in items]
        if self.max_new_tokens:
            answers = prompts.answers(items, self.max_new_tokens)
        return [
            {
                **_line(item, right, of_item, answer),
                **choices.get(item.id, {}),
                **blind_question(prompts, item, of_item),
            }
            for item, right, of_item, answer in zip(items, rights, scores, answers, strict=True)
        ]

    def _choices(
        self, module: LightningModule, items: Sequence[Sample], prompts: ItemPrompts
    ) -> dict[str, dict[str, float | None]]:
        """Let the model choose between the best answer and the best incorrect one; give the figures by an item's id."""
        pairs = {item.id: (item, wrong) for item in items if (wrong := _best_incorrect(item)) is not None}
        asked = [order for item, wrong in pairs.values() for order in orders(item.answer, wrong)]
        twice = [item for item, _ in pairs.values() for _ in range(2)]
        scores = self.scored(module, twice, prompts, [LETTERS for _ in twice], asked)
        found = {}
        for place, name in enumerate(pairs):
            first, last = scores[2 * place : 2 * place + 2]
            figures = {
                control: {"binary": binary(*([s.log_probability for s in one[control]] for one in (first, last)))}
                for control in first
                if control in last
            }
            if ASKED in figures:
                found[name] = with_controls(figures.pop(ASKED), figures)
        return found

    def figures(self, lines: Sequence[Line]) -> Mapping[str, Tensor]:
        """Give the figures over items."""
        tokens = torch.tensor([line["answer_tokens"] for line in lines])
        sums = torch.tensor([line["answer_nll"] * line["answer_tokens"] for line in lines])
        figures = {"best_answer_nll": sum(sums, torch.tensor(0.0)) / tokens.sum()}
        nlls = control_means(lines, "answer_nll", weight="answer_tokens")
        figures.update({f"best_answer_nll_{ending}": mean for ending, mean in nlls.items()})
        choices = [_scores_by_truth(line) for line in lines if "mc1" in line]
        if choices:
            figures.update(multiple_choice(choices))
            for name in MULTIPLE_CHOICE:
                means = control_means(lines, name, worst=-1.0)
                if name != "mc2":
                    means.pop(INFORMED, None)  # one of the three says it
                figures.update({f"{name}_{ending}": mean for ending, mean in means.items()})
        binaries = [line["binary"] or 0.0 for line in lines if "binary" in line]
        if binaries:
            figures["binary"] = torch.tensor(sum(binaries) / len(binaries), dtype=torch.float32)
            means = control_means(lines, "binary", worst=-1.0)
            figures.update({f"binary_{ending}": mean for ending, mean in means.items()})
        overlaps = [line for line in lines if "rouge_diff" in line]
        if overlaps:
            figures.update(mean_overlap(overlaps))
        return figures


def _best_incorrect(item: Sample) -> str | None:
    """Give the best incorrect answer: that of a field of its own, or the only one."""
    only = item.incorrect_answers[0] if len(item.incorrect_answers) == 1 else None
    return item.best_incorrect_answer or only


def _line(item: Sample, right: Sequence[str], scores: Mapping[str, Sequence[ChoiceScore]], answer: str | None) -> Line:
    texts, best = (*right, *item.incorrect_answers), scores[ASKED][0]
    controls = {name: _figures(of_one, len(right)) for name, of_one in scores.items()}
    line: Line = {
        **with_controls(controls.pop(ASKED), controls),
        **by_temperature(best.nll_by_temperature),
        "answer_tokens": best.tokens,
        "choices": [
            {
                "text": text,
                "correct": place < len(right),
                **{log_probability(name): of_one[place].log_probability for name, of_one in scores.items()},
            }
            for place, text in enumerate(texts)
        ],
        "answer": answer,
    }
    if item.incorrect_answers and answer is not None:
        line.update(reference_overlap(answer, right, item.incorrect_answers))
    return line


def _figures(scores: Sequence[ChoiceScore], correct: int) -> dict[str, float | None]:
    """Give an item's figures from the scores of its answers, of which so many are correct: the first ones."""
    figures: dict[str, float | None] = {"answer_nll": -scores[0].log_probability / scores[0].tokens}
    right, wrong = ([score.log_probability for score in part] for part in (scores[:correct], scores[correct:]))
    if wrong:
        known = all_finite(right, wrong)
        figures.update({name: measure(right, wrong) if known else None for name, measure in MULTIPLE_CHOICE.items()})
    return figures


def _scores_by_truth(line: Line) -> tuple[list[float], list[float]]:
    """Give the scores of the correct answers, and those of the incorrect ones."""
    scores: tuple[list[float], list[float]] = ([], [])
    for choice in line["choices"]:
        scores[not choice["correct"]].append(choice["log_probability"])
    return scores
