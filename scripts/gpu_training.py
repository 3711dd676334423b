"""Training at a shape: tokens a second and the share of the device's operations that they use (MFU)."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from unittest.mock import patch

import torch
from bench_training import FORMAT, Setup, adapted, answer_length, fit, joined_samples, sft_trainer, step_flops
from benchmark import seconds_of
from gpu_rows import PRECISION, Check, Row
from shapes import tokenizer_name

from isara_pl.growth.samples import Sample
from isara_pl.models.loading import load_tokenizer
from isara_pl.module import IsaraModule
from isara_pl.run.memory import is_out_of_memory
from isara_pl.training.pairs import EncodedPair, encode_pair


@dataclass(frozen=True)
class Lesson:
    """What is trained on.

    Attributes:
        name: What its lengths are.
        samples: The pairs.
        pairs: The same, encoded.
        tokens: Tokens of all pairs, without padding.
        flops: Operations that training on them needs at least.
    """

    name: str
    samples: list[Sample]
    pairs: list[EncodedPair]
    tokens: int
    flops: float


def training(check: Check) -> Iterator[Row]:
    """Time LoRA on all linear layers, with and without activations that are computed twice."""
    setup, lessons = work(check)
    yield from of_module(check, "isara_pl", setup, lessons)
    yield from of_module(check, "checkpointing", replace(setup, gradient_checkpointing=True), lessons[:1])


def compiled(check: Check) -> Iterator[Row]:
    """Time the same with compiled layers."""
    setup, lessons = work(check)
    # a CPU's compiler takes a minute, and is tested elsewhere
    compile_layers = partial(torch.compile, backend="eager") if check.small else torch.compile
    with patch.object(torch, "compile", compile_layers):
        yield from of_module(check, "compiled", setup, lessons, compiled=True)


def trl(check: Check) -> Iterator[Row]:
    """Time TRL's trainer with the same pairs, adapter and batch size."""
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
        yield Row("TRL", note="left out: trl or datasets is not installed")
        return
    setup, lessons = work(check)
    options = IsaraModule(tokenizer_name())  # its tokenizer and learning rate; no weights are loaded
    for lesson in lessons:

        def begin(setup: Setup, lesson: Lesson = lesson) -> Callable[[], object]:
            trainer = sft_trainer(setup, options, lesson.samples, "group_by_length")
            return lambda: trainer.train()

        yield from timed(check, "TRL", lesson, setup, begin)


def of_module(
    check: Check, name: str, setup: Setup, lessons: Sequence[Lesson], compiled: bool = False
) -> Iterator[Row]:
    """Time this project's module."""
    check.free_memory()
    module = adapted(setup, compiled)
    for lesson in lessons:

        def begin(setup: Setup, lesson: Lesson = lesson) -> Callable[[], object]:
            return lambda: fit(module, lesson.pairs, setup)

        yield from timed(check, name, lesson, setup, begin)


def timed(
    check: Check, name: str, lesson: Lesson, setup: Setup, begin: Callable[[Setup], Callable[[], object]]
) -> Iterator[Row]:
    """Train on every pair twice and time the second time; with smaller batches where the memory does not suffice."""
    while True:
        check.free_memory()
        try:
            train = begin(setup)
            train()
            seconds = seconds_of(train, check.device)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error) or setup.batch_size == 1:
                raise
        setup = replace(setup, batch_size=setup.batch_size // 2)
    name = f"{name}, {lesson.name}"
    step = seconds / len(lesson.pairs) * setup.batch_size
    yield Row(name, lesson.tokens / seconds, "tokens/s", f"batches of {setup.batch_size}, {step * 1e3:.0f} ms a step")
    yield Row(f"{name}: MFU", lesson.flops / seconds / check.limits.flops, "", "of the matmul peak; target: 0.4")
    yield from check.peak(name)


def work(check: Check) -> tuple[Setup, list[Lesson]]:
    """Give what is trained, and pairs of equal and of unequal lengths, made of the quickstart's seeds."""
    shortest, longest, batch_size, steps = (48, 80, 2, 2) if check.small else (100, 500, 8, 8)
    setup = Setup(check.shape, check.device, PRECISION, r=16, batch_size=batch_size, max_length=longest)
    count, spread = steps * batch_size, longest - shortest
    tokenizer, on_paper = load_tokenizer(tokenizer_name()), replace(check, device="meta").adapted_model()
    lessons = []
    for name, lengths in (
        (f"{longest} tokens each", [longest] * count),
        (f"{shortest} to {longest} tokens", [shortest + spread * place // count for place in range(count)]),
    ):
        samples = []
        for sample, length in zip(joined_samples(count, 30), lengths, strict=True):
            prompt = len(tokenizer(FORMAT.answer_prompt(sample.question)).input_ids)
            answer = str(tokenizer.decode(tokenizer(sample.answer).input_ids[: length - prompt - 1]))
            samples.append(replace(sample, answer=answer))
        pairs = [encode_pair(sample, FORMAT, tokenizer, longest, end=True) for sample in samples]
        tokens = sum(len(pair.input_ids) for pair in pairs)
        lessons.append(
            Lesson(name, samples, pairs, tokens, step_flops(on_paper, tokens, sum(map(answer_length, pairs))))
        )
    return setup, lessons
