"""Training at a shape: tokens a second and the share of the device's operations that they use (MFU)."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from bench_training import FORMAT, Setup, adapted, answer_length, fit, joined_samples, sft_trainer, step_flops
from benchmark import seconds_of
from gpu_rows import PRECISION, Check, Row
from shapes import tokenizer_name

from isara_pl.growth.samples import Sample
from isara_pl.models import load_tokenizer
from isara_pl.module import IsaraModule
from isara_pl.sft import EncodedPair, encode_pair

STEPS = 8


@dataclass(frozen=True)
class Lesson:
    """What is trained on.

    Attributes:
        name: What its lengths are.
        samples: The pairs.
        pairs: The same, encoded.
    """

    name: str
    samples: list[Sample]
    pairs: list[EncodedPair]

    @property
    def tokens(self) -> int:
        """Tokens of all pairs, without padding."""
        return sum(len(pair.input_ids) for pair in self.pairs)


def training(check: Check) -> Iterator[Row]:
    """Time LoRA on all linear layers: equal and unequal lengths, activations computed twice, TRL, compiled layers."""
    longest, batch_size = (80, 2) if check.small else (500, 8)
    setup = Setup(check.shape, check.device, PRECISION, r=16, batch_size=batch_size, max_length=longest)
    count = STEPS * batch_size
    shortest = longest // 5 * (3 if check.small else 1)
    packed = lesson(f"{longest} tokens each", [longest] * count)
    unpacked = lesson(
        f"{shortest} to {longest} tokens", [shortest + (longest - shortest) * n // count for n in range(count)]
    )
    flops = {}
    for name, twice, compiled in (
        ("isara_pl", False, False),
        ("checkpointing", True, False),
        ("compiled", False, True),
    ):
        if compiled:
            yield from of_trl(check, setup, (packed, unpacked), flops)
        check.free_memory()
        module = adapted(replace(setup, gradient_checkpointing=twice), compiled)
        for given in (packed,) if twice else (packed, unpacked):
            flops[given.name] = step_flops(module, given.tokens, sum(map(answer_length, given.pairs)))
            yield from timed(
                check,
                f"{name}, {given.name}",
                given,
                flops[given.name],
                setup,
                lambda setup, module=module, given=given: lambda: fit(module, given.pairs, setup),
            )
        del module


def of_trl(check: Check, setup: Setup, lessons: tuple[Lesson, ...], flops: dict[str, float]) -> Iterator[Row]:
    """Time TRL's trainer with the same pairs, adapter and batch size."""
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
        yield Row("TRL", note="left out: trl or datasets is not installed")
        return
    options = IsaraModule(tokenizer_name())  # its tokenizer and learning rate; no weights are loaded
    for given in lessons:
        yield from timed(
            check,
            f"TRL, {given.name}",
            given,
            flops[given.name],
            setup,
            lambda setup, given=given: sft_trainer(setup, options, given.samples, "group_by_length").train,
        )


def timed(
    check: Check,
    name: str,
    given: Lesson,
    flops: float,
    setup: Setup,
    begin: Callable[[Setup], Callable[[], object]],
) -> Iterator[Row]:
    """Train on every pair twice, time the second time; with smaller batches where the memory does not suffice."""
    while True:
        check.free_memory()
        try:
            work = begin(setup)
            work()
            seconds = seconds_of(work, check.device)
            break
        except torch.OutOfMemoryError:
            if setup.batch_size == 1:
                raise
        setup = replace(setup, batch_size=setup.batch_size // 2)
    note = f"batches of {setup.batch_size}, {seconds / len(given.pairs) * setup.batch_size * 1e3:.0f} ms a step"
    yield Row(f"{name}", given.tokens / seconds, "tokens/s", note)
    yield Row(f"{name}: MFU", flops / seconds / check.limits.flops, "", "of the matmul peak; target: 0.4")
    yield check.peak(name)


def lesson(name: str, lengths: list[int]) -> Lesson:
    """Make pairs of given lengths from the quickstart's seeds.

    Args:
        name: What these lengths are.
        lengths: Tokens of each pair, its end included.
    """
    tokenizer = load_tokenizer(tokenizer_name())
    samples = []
    for sample, length in zip(joined_samples(len(lengths), 30), lengths, strict=True):
        prompt = len(tokenizer(FORMAT.answer_prompt(sample.question)).input_ids)
        answer = tokenizer.decode(tokenizer(sample.answer).input_ids[: length - prompt - 1])
        samples.append(replace(sample, answer=answer))
    pairs = [encode_pair(sample, FORMAT, tokenizer, max(lengths), end=True) for sample in samples]
    return Lesson(name, samples, pairs)
