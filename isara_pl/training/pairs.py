"""Supervised fine-tuning on pairs: encoding, loss mask, collation, length grouping."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from typing_extensions import NotRequired

from isara_pl.errors import InputError
from isara_pl.generation.distributions import TokenDistributions, joined
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.samples import Sample
from isara_pl.models.loading import only_logits_of
from isara_pl.models.tokens import encode_continuation, encode_prompt, first_control

IGNORED = -100  # a label without loss, as everywhere in Hugging Face


@dataclass(frozen=True)
class EncodedPair:
    """A prompt and an answer as token ids."""

    sample_id: str
    input_ids: list[int]  # prompt, then answer
    prompt_length: int  # tokens of the prompt; the rest has loss
    # the teacher's, one for each of the rest; None where nothing is distilled
    distributions: TokenDistributions | None = None
    learned: bool = True  # whether the answer itself is learned; else the teacher's distributions alone


class Taught(TypedDict):
    """What a teacher gave for some pairs of a batch.

    `learned`, of shape (batch,), tells whose answers are learned as they stand. `tokens`, of shape (batch,
    longest), are the labels that have a distribution; `ids` and `log_probs` of shape (n, k) and `rest` of shape
    (n,), as of `TokenDistributions`, are those distributions, row after row.
    """

    learned: Tensor
    tokens: Tensor
    ids: Tensor
    log_probs: Tensor
    rest: Tensor


class Batch(TypedDict):
    """Right-padded pairs.

    `input_ids`, `attention_mask` and `labels` have shape (batch, longest); `labels` is -100 except on
    the answers' tokens. `taught` is there where any of the pairs has a teacher's distributions.
    """

    sample_ids: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    taught: NotRequired[Taught]


def encode_pair(
    sample: Sample,
    prompt_format: PromptFormat,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    end: bool,
) -> EncodedPair:
    """Encode a pair in the form in which the model is fine-tuned: no demonstrations.

    An answer is cut where the pair has more than `max_length` tokens. `end` puts the end-of-sequence token behind it:
    yes to train, no to measure, since a pretrained model ends an answer in another way. Raises InputError if the prompt
    alone has `max_length` tokens.
    """
    prompt = prompt_format.answer_prompt(sample.question)
    prompt_ids, answer_ids = encode_continuation(tokenizer, prompt, prompt_format.answer_text(sample.answer))
    if len(prompt_ids) >= max_length:
        raise InputError(
            f"the question of sample {sample.id} alone has {len(prompt_ids)} tokens; at most {max_length} are allowed "
            "(data.max_length or the model's window, whichever is shorter). Shorten it, or raise data.max_length"
        )
    ending = [end_id(prompt_format, tokenizer)] if end else []
    return EncodedPair(sample.id, [*prompt_ids, *answer_ids, *ending][:max_length], len(prompt_ids))


def end_id(prompt_format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> int:
    """Give the token that ends an answer: the format's own end of turn if that is a token, else EOS."""
    own = first_control(tokenizer, prompt_format.ending)
    return int(tokenizer.eos_token_id if own is None else own)


class PairEncoder:
    """Encodes the pairs of a run to train and to measure on, each of them once."""

    def __init__(self, prompt_format: PromptFormat, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.prompt_format = prompt_format
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_token_id, self.end_id = int(tokenizer.pad_token_id), end_id(prompt_format, tokenizer)
        self._known: dict[tuple[str, str, str, bool], EncodedPair] = {}

    def __call__(self, sample: Sample, end: bool = True) -> EncodedPair:
        """Encode a pair as `encode_pair` does."""
        key = sample.id, sample.question, sample.answer, end
        if key not in self._known:
            self._known[key] = encode_pair(sample, self.prompt_format, self.tokenizer, self.max_length, end)
        return self._known[key]


class TooLong:
    """Rejects candidates that could not be trained on: whose prompt alone fills the longest pair.

    `max_length` is the most tokens of a pair.
    """

    def __init__(self, prompt_format: PromptFormat, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.prompt_format = prompt_format
        self.tokenizer = tokenizer
        self.max_length = max_length

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the prompt's tokens; the figure is their number."""
        tokens = len(encode_prompt(self.tokenizer, self.prompt_format.answer_prompt(candidate.question)))
        return Verdict(tokens, f"question fills all {self.max_length} tokens" if tokens >= self.max_length else None)


def collate(pairs: Sequence[EncodedPair], pad_token_id: int) -> Batch:
    """Pad pairs on the right to the longest."""
    longest = max(len(pair.input_ids) for pair in pairs)
    input_ids = torch.full((len(pairs), longest), pad_token_id)  # (batch, longest)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, pair in enumerate(pairs):
        length = len(pair.input_ids)
        input_ids[row, :length] = torch.tensor(pair.input_ids)
        attention_mask[row, :length] = 1
        labels[row, pair.prompt_length : length] = input_ids[row, pair.prompt_length : length]
    batch = Batch(
        sample_ids=[pair.sample_id for pair in pairs],
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=labels,
    )
    given = [pair.distributions for pair in pairs if pair.distributions is not None]
    if given:
        taught = [pair.distributions is not None for pair in pairs]
        every = joined(given)
        batch["taught"] = Taught(
            learned=torch.tensor([pair.learned for pair in pairs]),
            tokens=(labels != IGNORED) & torch.tensor(taught)[:, None],
            ids=every.ids,
            log_probs=every.log_probs,
            rest=every.rest,
        )
    return batch


def answer_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Give the logits at the answers' tokens.

    Gives the logits from which each answer token is predicted, row after row, of shape (tokens, vocabulary); and the
    label that each position of a row predicts, of shape (batch, longest), -100 where there is none.
    """
    targets = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)  # of each position
    with only_logits_of(model, targets != IGNORED):
        logits: Tensor = model(
            input_ids=batch["input_ids"],
            # no token sees what stands to its right, so padding there needs no mask; attention is faster without
            attention_mask=torch.ones_like(batch["attention_mask"]),
            use_cache=False,
        ).logits[0]  # (counted, vocabulary)
    return logits, targets


def answer_nll(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Give the negative log-likelihood of the answers' tokens.

    Gives for each pair the sum over its answer's tokens, in nats, and the number of these tokens; both of shape
    (batch,).
    """
    logits, targets = answer_logits(model, batch)
    return summed_nll(logits, targets), (targets != IGNORED).sum(dim=1)


def summed_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Give the negative log-likelihood of each pair's answer, of shape (batch,), in nats.

    Both are those of `answer_logits`.
    """
    counted = targets != IGNORED
    losses = torch.zeros(targets.shape, dtype=torch.float32, device=logits.device)
    losses[counted] = torch.nn.functional.cross_entropy(logits.float(), targets[counted], reduction="none")
    return losses.sum(dim=1)


def length_grouped_batches(lengths: Sequence[int], batch_size: int, seed: int) -> list[list[int]]:
    """Split places into batches of like length, in random order.

    The last one may be smaller. Gives batches of places; every place stands in exactly one.
    """
    draw = random.Random(seed)
    places = draw.sample(range(len(lengths)), len(lengths))
    span = 8 * batch_size  # sorted only within such spans: the batches still differ from epoch to epoch
    batches: list[list[int]] = []
    for start in range(0, len(places), span):
        by_length = sorted(places[start : start + span], key=lambda place: lengths[place])
        batches.extend(by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size))
    draw.shuffle(batches)
    return batches


class _ResumableBatches:
    """The batches of one epoch; after a resume in its middle, those that were not yet trained on."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches
        self.skip = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        yield from self.batches[skip:]


class SftLoader(DataLoader[EncodedPair]):
    """The batches of one epoch, resumable in the middle through Lightning's `state_dict` protocol.

    `batches` are the places of each batch in `pairs`. The state of another epoch is not taken over.
    """

    def __init__(self, pairs: list[EncodedPair], batches: list[list[int]], epoch: int, pad_token_id: int) -> None:
        self._resumable = _ResumableBatches(batches)
        super().__init__(
            pairs,  # type: ignore[arg-type]  # a list is a map-style dataset to torch, but not to its types
            batch_sampler=self._resumable,
            collate_fn=lambda chosen: collate(chosen, pad_token_id),
        )
        self._epoch = epoch
        self._given = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch types every loader's batches as Any
        self._given = self._resumable.skip
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Give the epoch and how many of its batches were handed out."""
        return {"epoch": self._epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches that were handed out before, if the state is of this epoch and not of its end."""
        if state["epoch"] == self._epoch and state["batches"] < len(self._resumable):
            self._resumable.skip = state["batches"]
