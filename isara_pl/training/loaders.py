"""What is trained and measured on: the validation share of the seeds, and loaders to train, measure and predict."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from isara_pl.errors import InputError
from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import wording
from isara_pl.run.randomness import derive_seed
from isara_pl.run.trainer import Processes
from isara_pl.training.pairs import Batch, EncodedPair, SftLoader, collate, length_grouped_batches

T = TypeVar("T")
# what is measured on pairs: on those of data.held_out, and on the validation share
Figure = Literal["answer_nll", "validation_nll"]


class MeasuredBatch(Batch, total=False):
    """Pairs that are measured on. `figure` says under which name; without it they are held-out ones."""

    figure: Figure


# -- the validation share


def training_part(seeds: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Give the seeds without a validation share, in the given order.

    The share is drawn at random and above 0 one seed at least; seeds that ask the same stay on one side. The run's seed
    alone decides: a larger share holds every seed of a smaller one.

    Raises:
        InputError: If the share is out of range, or leaves nothing to train on.
    """
    if not 0 <= share < 1:
        raise InputError(f"data.validation_share is {share}; allowed: at least 0 and below 1")
    if share == 0:
        return list(seeds)
    same: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, one in enumerate(seeds):
        same[wording(one.question)].append(place)
    size = max(1, round(share * len(seeds)))
    drawn: set[int] = set()
    for question in random.Random(derive_seed(seed, "validation")).sample(list(same), len(same)):
        if len(drawn) < size:
            drawn.update(same[question])
    if len(drawn) == len(seeds):
        raise InputError(
            f"data.validation_share is {share}, but data.seeds has {len(seeds)} seeds ({len(same)} different "
            "questions): at least one must be left to train on. Use a smaller share, 0, or more seeds"
        )
    return [one for place, one in enumerate(seeds) if place not in drawn]


def left_out(seeds: Sequence[Sample], used: Sequence[Sample]) -> list[Sample]:
    """Give the validation share: the given seeds whose question no seed that is trained on, `used`, asks.

    Raises:
        InputError: If there are none: where a pool goes on, `used` are its own.
    """
    asked = {wording(one.question) for one in used}
    others = [one for one in seeds if wording(one.question) not in asked]
    if not others:
        raise InputError(
            f"data.validation_share: the pool goes on with its own seeds, and holds all {len(seeds)} of data.seeds: "
            "none is left to validate on. Use 0, or start anew in another folder"
        )
    return others


def in_file_order(seeds: Sequence[Sample]) -> list[Sample]:
    """Give seeds in the order of their file, which their ids count."""
    return sorted(seeds, key=lambda one: (len(one.id), one.id))


# -- loaders: every process has as many batches, of its share of each


def training_loader(
    pairs: Sequence[EncodedPair], batch_size: int, epoch: int, seed: int, processes: Processes, pad_token_id: int
) -> SftLoader:
    """Give the batches of one epoch, pairs of like length together; the epoch counts for a resume in its middle.

    Where a batch has fewer pairs than there are processes, those left over get one without loss.
    """
    batches = length_grouped_batches([len(pair.input_ids) for pair in pairs], batch_size, seed)
    shares = [[*processes.share(batch)] or [len(pairs)] for batch in batches]
    return SftLoader([*pairs, _without_loss(pairs[0])], shares, epoch, pad_token_id)


def text_loader(
    samples: Sequence[Sample], prompt_format: PromptFormat, batch_size: int, seed: int, processes: Processes
) -> Any:
    """Give the batches of one epoch as the dicts of `texts`; processes that are left over get the last sample again."""
    lengths = [len(sample.question) + len(sample.answer) for sample in samples]
    batches = length_grouped_batches(lengths, batch_size, seed)
    shares = [[*processes.share(batch)] or batch[-1:] for batch in batches]
    return DataLoader(cast(Any, samples), batch_sampler=shares, collate_fn=lambda some: texts(some, prompt_format))


def held_out_loader(
    pairs: Sequence[EncodedPair],
    batch_size: int,
    processes: Processes,
    pad_token_id: int,
    figure: Figure = "answer_nll",
    in_full: bool = True,
) -> Any:
    """Give pairs in batches of `MeasuredBatch`; processes that are left over get one without loss.

    Where all batches are used, `in_full`, the shortest pairs come first, which is fastest. Else the first batches have
    to stand for all: the order is random, and always the same.
    """
    pairs = [*pairs]
    if in_full:
        pairs.sort(key=lambda pair: len(pair.input_ids))
    else:
        random.Random(0).shuffle(pairs)
    shares = [processes.share(batch) or [_without_loss(pairs[0])] for batch in _batches(pairs, batch_size)]
    return DataLoader(
        cast(Any, shares), collate_fn=lambda one: MeasuredBatch(**collate(one[0], pad_token_id), figure=figure)
    )


def question_loader(
    questions: Sequence[Sample], prompt_format: PromptFormat, batch_size: int, processes: Processes
) -> Any:
    """Give questions in batches as `predict_step` takes them; processes that are left over get none."""
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
    """Give samples as lists of texts: id, question, answer, prompt, completion."""
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


@runtime_checkable
class HeldOutEvaluation(Protocol):
    """A callback that measures on items of its own at the end of every validation and test."""

    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the current model."""


def loader_without_pairs(trainer: Any) -> Any:
    """Give one empty batch where a callback measures on items of its own: Lightning validates nothing without one."""
    callbacks = trainer.callbacks if trainer else []
    measured = any(isinstance(callback, HeldOutEvaluation) for callback in callbacks)
    return DataLoader(cast(Any, [{}]), collate_fn=lambda _: {}) if measured else []
