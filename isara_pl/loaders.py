"""The loaders over samples: to train, to measure and to predict."""

from collections.abc import Sequence
from typing import Any, cast

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.samples import Sample
from isara_pl.sft import EncodedPair, SftLoader, collate, encode_pair, length_grouped_batches


def training_loader(
    samples: Sequence[Sample],
    prompt_format: PromptFormat,
    tokenizer: PreTrainedTokenizerBase | None,
    batch_size: int,
    longest: int,
    epoch: int,
    seed: int,
) -> Any:
    """Give the batches of one epoch, samples of like length together.

    Args:
        samples: What is trained on.
        prompt_format: How pairs become text.
        tokenizer: Encodes them; None gives batches of texts.
        batch_size: Samples of a batch.
        longest: Most tokens of a pair; longer answers are cut.
        epoch: Which epoch this is, for a resume in its middle.
        seed: Decides the order.

    Returns:
        A loader of `isara_pl.sft.Batch`, or of the dicts of `texts`.
    """
    if tokenizer is None:
        lengths = [len(sample.question) + len(sample.answer) for sample in samples]
        batches = length_grouped_batches(lengths, batch_size, seed)
        return DataLoader(cast(Any, samples), batch_sampler=batches, collate_fn=lambda some: texts(some, prompt_format))
    pairs = _encoded(samples, prompt_format, tokenizer, longest, end=True)
    batches = length_grouped_batches([len(pair.input_ids) for pair in pairs], batch_size, seed)
    return SftLoader(pairs, batches, epoch, int(tokenizer.pad_token_id))


def held_out_loader(
    samples: Sequence[Sample],
    prompt_format: PromptFormat,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    longest: int,
) -> Any:
    """Give held-out pairs in batches of `isara_pl.sft.Batch`, the shortest first and without their end.

    Args:
        samples: The pairs.
        prompt_format: How pairs become text.
        tokenizer: Encodes them.
        batch_size: Pairs of a batch.
        longest: Most tokens of a pair; longer answers are cut.
    """
    pairs = _encoded(samples, prompt_format, tokenizer, longest, end=False)
    pairs.sort(key=lambda pair: len(pair.input_ids))
    pad = int(tokenizer.pad_token_id)
    return DataLoader(cast(Any, pairs), batch_size=batch_size, collate_fn=lambda chosen: collate(chosen, pad))


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


def _encoded(
    samples: Sequence[Sample],
    prompt_format: PromptFormat,
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    end: bool,
) -> list[EncodedPair]:
    return [encode_pair(sample, prompt_format, tokenizer, longest, end) for sample in samples]
