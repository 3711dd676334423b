"""Writing tokens behind the prompts of a batch, each drawn from its row's own random number; scoring given ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isara_pl.errors import InputError
from isara_pl.generation.decoding import Batch
from isara_pl.generation.distributions import (
    TokenDistributions,
    TopLogprobs,
    end_tokens,
    first_logprobs,
    joined,
    likeliest_tokens,
    top_logprobs,
    without_ends,
)
from isara_pl.generation.kv_cache import rounds
from isara_pl.generation.protocol import Sampling
from isara_pl.generation.step_graphs import StepGraphs
from isara_pl.run.randomness import derive_seed
from isara_pl.run.stages import count

# on a GPU looking which rows have ended waits for the device, and a row that leaves changes all shapes
TOKENS_BETWEEN_LOOKS = 8
SCORED_TOKENS = 1024  # of a forward pass behind the prompts: with a large vocabulary their logits fill the memory


@dataclass(frozen=True)
class Written:
    """What was written after a prompt."""

    ids: list[int]  # the new tokens, with the one that ended them if any did
    # the distribution that each of them was drawn from, where that was asked for
    distributions: TokenDistributions | None = None


class Rows:
    """The rows of a batch that are being written: drawing and appending a token waits for nothing.

    `logits` are those after each prompt, none of which an end may follow, of shape (rows, vocabulary); `uniform` is a
    random number for each prompt and new token, of shape (prompts, new tokens).
    """

    def __init__(
        self,
        batch: Batch,
        logits: Tensor,
        sampling: Sampling,
        uniform: Tensor,
        stops: Sequence[int],
        top: TopLogprobs | None,
    ) -> None:
        self.batch = batch
        self._sampling = sampling
        self._top = top
        self._uniform = uniform[batch.order].to(logits.device)
        self.tokens = torch.zeros(self._uniform.shape, dtype=torch.long, device=logits.device)
        self._last = self.tokens[:, :1].clone()  # of each row, what `append` appends
        self._column = torch.full((1,), batch.longest, device=logits.device)  # where it does so
        self._place = torch.zeros_like(self._column)  # of the token that is drawn next
        self.kept: TokenDistributions | None = None
        if top is not None:
            self._ends = end_tokens(logits, stops, top)
            shape = (*self.tokens.shape, min(top.count, logits.shape[-1]))  # (rows, new tokens, k)
            self.kept = TokenDistributions(
                logits.new_zeros(shape, dtype=torch.int32), logits.new_zeros(shape), logits.new_zeros(shape[:2])
            )
        self._draw(logits)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.batch.order)

    @property
    def columns(self) -> int:
        """How many columns there are: tokens of a row at most."""
        return self.batch.columns

    def append(self, steps: int) -> Tensor:
        """Append what was drawn last and draw anew.

        `steps` tokens were appended before. Gives the logits that were drawn from.
        """
        return self._drawn_from(self.batch.step(self._last, steps))

    def append_fixed(self) -> Tensor:
        """Do the same with equal shapes at every step, and no number from the CPU: a CUDA graph can hold it."""
        return self._drawn_from(self.batch.fixed_step(self._last, self._column))

    def take_back(self) -> None:
        """Undo what `append` did, so that the same token is appended and drawn again."""
        self._column -= 1
        self._place -= 1
        self._last.copy_(self.tokens.index_select(1, self._place - 1).clamp(min=0))

    def drop(self, finished: Sequence[int], steps: int) -> None:
        """Let rows leave. `steps` tokens were appended."""
        stay = torch.tensor(self.batch.drop(finished, steps), device=self.tokens.device)
        self._uniform, self.tokens, self._last = self._uniform[stay], self.tokens[stay], self._last[stay]
        if self.kept is not None:
            self.kept = self.kept.at(stay)

    def _drawn_from(self, logits: Tensor) -> Tensor:
        self._column += 1
        self._draw(logits)
        return logits

    def _draw(self, logits: Tensor) -> None:
        if self.kept is not None and self._top is not None:
            now = likeliest_tokens(logits, self._ends, self._top)
            self.kept.ids.index_copy_(1, self._place, now.ids[:, None])
            self.kept.log_probs.index_copy_(1, self._place, now.log_probs[:, None])
            self.kept.rest.index_copy_(1, self._place, now.rest[:, None])
        drawn = next_tokens(logits, self._sampling, self._uniform.index_select(1, self._place)[:, 0])[:, None]
        self.tokens.index_copy_(1, self._place, drawn)
        self._last.copy_(drawn.clamp(min=0))  # what is no token is found when it is read
        self._place += 1


def complete(
    model: Any,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    stops: Sequence[int],
    top: TopLogprobs | None = None,
    graphs: StepGraphs | None = None,
) -> list[Written]:
    """Complete prompts in one batch.

    Only for what `Sampling.is_plain` covers. None of `stops`, which end a completion, comes first. What `top` keeps are
    the distributions before temperature, top_p and top_k. `graphs` appends tokens by CUDA graphs where it can. Raises
    InputError if there is nothing to draw from, since the model gives NaN.
    """
    batch = Batch(model, prompts, rounds(prompts), sampling.max_new_tokens)
    uniform = uniform_numbers(list(seeds), sampling.max_new_tokens)
    rows = Rows(batch, without_ends(batch.prefill(), stops), sampling, uniform, stops, top)
    count(prompt_tokens=sum(map(len, prompts)))
    texts = _Texts(len(prompts), stops)
    append = graphs.appending(rows) if graphs is not None and graphs.suit() else rows.append
    between_looks = 1 if looks_at_every_token(batch.device) else TOKENS_BETWEEN_LOOKS
    for steps in range(sampling.max_new_tokens):
        drawn, last = steps + 1, steps + 1 == sampling.max_new_tokens
        if last or drawn % between_looks == 0:
            finished = texts.read(rows, drawn)
            if last or len(finished) == rows.count:
                break
            # other shapes need another graph, which costs more than some rows that are computed in vain
            if finished and (append == rows.append or 2 * len(finished) >= rows.count):
                rows.drop(finished, steps)
        append(steps)
    count(done=texts.ended.count(False))
    return texts.written()


def looks_at_every_token(device: torch.device) -> bool:
    """Whether looking which rows have ended costs nothing: there is no queue of work to wait for."""
    return device.type == "cpu"


class _Texts:
    """What was written after each prompt of a batch, as far as it was read from the device."""

    def __init__(self, prompts: int, stops: Sequence[int]) -> None:
        self.ended = [False] * prompts
        self._stops = set(stops)
        self._ids: list[list[int]] = [[] for _ in range(prompts)]
        self._kept: list[list[TokenDistributions]] = [[] for _ in range(prompts)]
        self._read = 0  # tokens of those that have not ended

    def read(self, rows: Rows, drawn: int) -> list[int]:
        """Read what rows have got since the last time, up to their ends.

        `drawn` is how many tokens each one has got in all. Gives the rows that have ended. Raises InputError if
        something is no token.
        """
        new: list[list[int]] = rows.tokens[:, self._read : drawn].tolist()
        kept = rows.kept
        if kept is not None:
            kept = kept.at((slice(None), slice(self._read, drawn))).cpu()
        ended_before, tokens_before = self.ended.count(True), sum(map(len, self._ids))
        for row, prompt in enumerate(rows.batch.order):
            if self.ended[prompt]:
                continue
            end = next((place for place, token in enumerate(new[row], start=1) if token in self._stops), None)
            ids = new[row][:end]
            if min(ids) < 0:
                raise InputError(
                    "the model's logits are not numbers, so nothing can be drawn: training diverged (lower "
                    "model.learning_rate), or its weights are damaged or overflow in this trainer.precision"
                )
            self._ids[prompt] += ids
            self.ended[prompt] = end is not None
            if kept is not None:
                self._kept[prompt].append(kept.at((row, slice(0, len(ids)))))
        self._read = drawn
        count(done=self.ended.count(True) - ended_before, generated_tokens=sum(map(len, self._ids)) - tokens_before)
        return [row for row, prompt in enumerate(rows.batch.order) if self.ended[prompt]]

    def written(self) -> list[Written]:
        """Give all texts."""
        return [Written(ids, joined(kept) if kept else None) for ids, kept in zip(self._ids, self._kept, strict=True)]


def score(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], stops: Sequence[int], top: TopLogprobs
) -> list[TokenDistributions]:
    """Give the distributions at each token of the answers, in one batch.

    None of `stops`, which end an answer, comes first. Gives for each prompt those at its answer's tokens, and behind
    the last one.
    """
    longest = max(map(len, answers))
    batch = Batch(model, prompts, rounds(prompts), longest)
    first = first_logprobs(batch.prefill(), stops, top)  # of each row, in the order of the cache
    found: dict[int, TokenDistributions] = {}
    rows = max(1, SCORED_TOKENS // max(longest, 1))
    for begin in range(0, len(prompts), rows):
        chosen = batch.order[begin : begin + rows]
        given = [answers[prompt] for prompt in chosen]
        then = top_logprobs(batch.behind(given, begin), stops, top) if any(given) else None
        place = 0
        for row, (prompt, answer) in enumerate(zip(chosen, given, strict=True), start=begin):
            own = first.rows(row, row + 1)
            found[prompt] = joined([own, then.rows(place, place + len(answer))]) if then and answer else own
            place += len(answer)
        count(done=len(chosen))
    count(prompt_tokens=sum(map(len, prompts)) + sum(map(len, answers)))
    return [found[prompt] for prompt in range(len(prompts))]


# a nucleus is nearly always among so many tokens: finding these costs a tenth of sorting a vocabulary
_LIKELIEST = 1024


def uniform_numbers(seeds: list[int], count: int) -> Tensor:
    """Give the random numbers of each row, one for each of its tokens.

    They are in [0, 1), of shape (rows, count), float64, and follow from the row's seed alone.
    """
    rows = [
        torch.rand(count, generator=torch.Generator().manual_seed(derive_seed(seed, "tokens")), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(rows)


def next_tokens(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """Give the next token of each row: the likeliest, or one drawn by inverting the distribution function.

    The tokens stand in the order of the vocabulary, so that a small change of the logits (another batch size, say)
    moves the borders between tokens a little, and seldom changes what is drawn. `logits` are of shape (rows,
    vocabulary); temperature comes first, then top_k, then top_p, as in transformers. `uniform` is a number in [0, 1)
    for each row, of shape (rows,). Gives ids of shape (rows,), where the logits lie; -1 where there is no distribution
    to draw from.
    """
    logits = logits.float()
    if not sampling.do_sample:
        likeliest = logits.max(dim=-1)
        return torch.where(likeliest.values.isfinite(), likeliest.indices, -1)
    probabilities = kept_probabilities(logits, sampling)
    # on Apple's GPUs there is no float64
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    distribution = _running_sum(probabilities.to(precise))  # (rows, vocabulary)
    total = distribution[:, -1:]
    below_1 = uniform[:, None].to(precise).clamp(max=1 - torch.finfo(precise).eps).to(total.device)
    drawn = torch.searchsorted(distribution, below_1 * total, right=True)[:, 0]
    return torch.where(total[:, 0].isfinite(), drawn.clamp(max=logits.shape[-1] - 1), -1)


def kept_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Give the probabilities after temperature, top_k and top_p: those of dropped tokens are 0.

    Of shape (rows, vocabulary), as the logits, which are float32; the rows need not sum to 1.
    """
    logits = logits / sampling.temperature
    vocabulary = logits.shape[-1]
    if 0 < sampling.top_k < vocabulary:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p == 1:
        return probabilities
    return probabilities.masked_fill(probabilities < _least_kept(probabilities, sampling.top_p)[:, None], 0)


def _least_kept(probabilities: Tensor, top_p: float) -> Tensor:
    """Give the least probability of each row's nucleus."""
    if probabilities.device.type != "cpu":  # sorting all takes less than waiting to hear whether some suffice
        return _nucleus_border(probabilities.sort(descending=True).values, top_p)
    least = _nucleus_border(probabilities.topk(min(_LIKELIEST, probabilities.shape[-1])).values, top_p)
    outside = least.isnan()
    if outside.any():
        least[outside] = _nucleus_border(probabilities[outside].sort(descending=True).values, top_p)
    return least


def _nucleus_border(descending: Tensor, top_p: float) -> Tensor:
    """Give the least probability of each row's nucleus; NaN where these tokens do not hold it all."""
    before = _running_sum(descending) - descending  # mass of the likelier ones
    kept = (before < top_p).sum(dim=-1, keepdim=True).clamp(min=1)
    border = descending.gather(1, kept - 1)[:, 0]
    held = kept[:, 0] < descending.shape[1]
    # a whole vocabulary (or all that top_k left, whose rest is 0) holds every nucleus
    return torch.where(held | (descending.sum(dim=-1) >= top_p), border, torch.nan)


def _running_sum(values: Tensor) -> Tensor:
    """Sum along the rows; under `Trainer(deterministic=True)` CUDA's own way is refused, and this one takes its place.

    Sums of 2, 4, 8, … neighbours, so that it takes as many steps as the number of columns has binary digits.
    """
    if not (values.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return values.cumsum(dim=-1)
    return _sum_by_doubling(values)


def _sum_by_doubling(values: Tensor) -> Tensor:
    reach = 1
    while reach < values.shape[-1]:
        values = torch.cat([values[..., :reach], values[..., reach:] + values[..., :-reach]], dim=-1)
        reach *= 2
    return values
