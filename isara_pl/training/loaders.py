"""The loaders over samples: to train, to measure and to predict."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.samples import Sample
from isara_pl.run.processes import Processes
from isara_pl.training.pairs import EncodedPair, SftLoader, collate, encode_pair, length_grouped_batches
from isara_pl.training.validation import Figure, MeasuredBatch

T = TypeVar("T")


def training_loader(
    samples: Sequence[Sample],
    prompt_format: PromptFormat,
    tokenizer: PreTrainedTokenizerBase | None,
    batch_size: int,
    longest: int,
    epoch: int,
    seed: int,
    processes: Processes,
    taught: Callable[[Sample, EncodedPair], EncodedPair] | None = None,
) -> Any:
    """Give this process's share of the batches of one epoch, samples of like length together.

    Every process has as many batches. Where a batch has fewer samples than there are processes, those
    left over get a pair without loss; in batches of texts, the last sample once more.

    Args:
        samples: What is trained on.
        prompt_format: How pairs become text.
        tokenizer: Encodes them; None gives batches of texts.
        batch_size: Samples of a batch, over all processes.
        longest: Most tokens of a pair; longer answers are cut.
        epoch: Which epoch this is, for a resume in its middle.
        seed: Decides the order.
        processes: Those that split each batch.
        taught: Gives a pair what its teacher said of it; None teaches nothing.

    Returns:
        A loader of `isara_pl.training.pairs.Batch`, or of the dicts of `texts`.
    """
    if tokenizer is None:
        lengths = [len(sample.question) + len(sample.answer) for sample in samples]
        batches = length_grouped_batches(lengths, batch_size, seed)
        shares = [[*processes.share(batch)] or batch[-1:] for batch in batches]
        return DataLoader(cast(Any, samples), batch_sampler=shares, collate_fn=lambda some: texts(some, prompt_format))
    pairs = _encoded(samples, prompt_format, tokenizer, longest, end=True)
    if taught is not None:
        pairs = [taught(sample, pair) for sample, pair in zip(samples, pairs, strict=True)]
    batches = length_grouped_batches([len(pair.input_ids) for pair in pairs], batch_size, seed)
    shares = [[*processes.share(batch)] or [len(pairs)] for batch in batches]
    return SftLoader([*pairs, _without_loss(pairs[0])], shares, epoch, int(tokenizer.pad_token_id))


def held_out_loader(
    samples: Sequence[Sample],
    prompt_format: PromptFormat,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    longest: int,
    processes: Processes,
    figure: Figure = "answer_nll",
    in_full: bool = True,
) -> Any:
    """Give this process's share of held-out pairs in batches of `MeasuredBatch`, without their end.

    Every process has as many batches; one that is left over gets a pair without loss.

    Args:
        samples: The pairs.
        prompt_format: How pairs become text.
        tokenizer: Encodes them.
        batch_size: Pairs of a batch, over all processes.
        longest: Most tokens of a pair; longer answers are cut.
        processes: Those that split each batch.
        figure: What is measured on them.
        in_full: Whether all batches are used: then the shortest pairs come first, which is fastest. Else the first
            batches have to stand for all: the order is random, and always the same.
    """
    pairs = _encoded(samples, prompt_format, tokenizer, longest, end=False)
    if in_full:
        pairs.sort(key=lambda pair: len(pair.input_ids))
    else:
        random.Random(0).shuffle(pairs)
    pad = int(tokenizer.pad_token_id)
    shares = [processes.share(batch) or [_without_loss(pairs[0])] for batch in _batches(pairs, batch_size)]
    return DataLoader(cast(Any, shares), collate_fn=lambda one: MeasuredBatch(**collate(one[0], pad), figure=figure))


def question_loader(
    questions: Sequence[Sample], prompt_format: PromptFormat, batch_size: int, processes: Processes
) -> Any:
    """Give this process's share of the questions that are answered, in batches as `predict_step` takes them.

    Every process has as many batches, some perhaps without a question.

    Args:
        questions: The questions.
        prompt_format: How they become prompts.
        batch_size: Questions of a batch, over all processes.
        processes: Those that split each batch.
    """
    shares = [processes.share(batch) for batch in _batches(questions, batch_size)]
    return DataLoader(
        cast(Any, shares),
        collate_fn=lambda one: {
            **texts(one[0], prompt_format),
            "stop_at_newline": prompt_format.single_line,
            "parse_answer": prompt_format.parse_answer,
        },
    )


def texts(samples: Sequence[Sample], prompt_format: PromptFormat) -> dict[str, Any]:
    """Give samples as lists of texts: id, question, answer, prompt, completion.

    Args:
        samples: The samples.
        prompt_format: How pairs become prompt and completion.
    """
    return {
        "id": [sample.id for sample in samples],
        "question": [sample.question for sample in samples],
        "answer": [sample.answer for sample in samples],
        "prompt": [prompt_format.answer_prompt(sample.question) for sample in samples],
        "completion": [prompt_format.answer_text(sample.answer) for sample in samples],
    }


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _without_loss(pair: EncodedPair) -> EncodedPair:
    """Give a pair of which nothing is learnt or measured: each step needs one in every process."""
    return replace(pair, prompt_length=len(pair.input_ids), distributions=None)


def _encoded(
    samples: Sequence[Sample],
    prompt_format: PromptFormat,
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    end: bool,
) -> list[EncodedPair]:
    return [encode_pair(sample, prompt_format, tokenizer, longest, end) for sample in samples]


@runtime_checkable
class HeldOutEvaluation(Protocol):
    """A callback that measures on items of its own at the end of every validation and test."""

    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the current model."""


def loader_without_pairs(trainer: Any) -> Any:
    """Give one empty batch where a callback measures on items of its own: without a batch Lightning runs no validation.

    Args:
        trainer: The trainer; None where there is none.
    """
    callbacks = trainer.callbacks if trainer else []
    measured = any(isinstance(callback, HeldOutEvaluation) for callback in callbacks)
    return DataLoader(cast(Any, [{}]), collate_fn=lambda _: {}) if measured else []
