"""Drawing the next token of each row, from the row's own random number."""

import torch
from torch import Tensor

from isara_pl.generation.protocol import Sampling
from isara_pl.run.randomness import derive_seed

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
