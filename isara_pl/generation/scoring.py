"""What a model finds likely at each token of given answers; what prompts share is computed once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isara_pl.generation.decoding import Batch
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs, joined, top_logprobs, without_ends
from isara_pl.generation.shared_prefixes import rounds
from isara_pl.models.loading import only_logits_of
from isara_pl.run.stages import count

SCORED_TOKENS = 1024  # of a forward pass behind the prompts: with a large vocabulary their logits fill the memory


def score(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], stops: Sequence[int], top: TopLogprobs
) -> list[TokenDistributions]:
    """Give the distributions at each token of the answers, in one batch.

    None of `stops`, which end an answer, comes first. Gives for each prompt those at its answer's tokens, and behind
    the last one.
    """
    longest = max(map(len, answers))
    batch = Batch(model, prompts, rounds(prompts), longest)
    first = _first(batch.prefill(), stops, top)  # of each row, in the order of the cache
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


def score_plainly(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], stops: Sequence[int], top: TopLogprobs
) -> list[TokenDistributions]:
    """As `score`, each prompt and its answer in a pass of its own: for models that do not suit the engine's batches."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt + answer], device=model.device)
        wanted = torch.zeros_like(ids, dtype=torch.bool)
        wanted[:, len(prompt) - 1 :] = True
        with only_logits_of(model, wanted):
            logits = model(input_ids=ids, use_cache=False).logits[0]
        first = _first(logits[:1], stops, top)
        found.append(joined([first, top_logprobs(logits[1:], stops, top)]) if answer else first)
        count(done=1, prompt_tokens=ids.shape[1])
    return found


def _first(logits: Tensor, stops: Sequence[int], top: TopLogprobs) -> TokenDistributions:
    """Give the distributions of first tokens: an answer has one, so none that ends it has any mass there."""
    return top_logprobs(without_ends(logits, stops), stops, top)
