"""What suits every model and every sampling: transformers' own `generate`, and scoring prompt by prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from isara_pl.errors import InputError, first_line
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs, first_logprobs, joined, top_logprobs
from isara_pl.generation.protocol import Sampling
from isara_pl.models.loading import only_logits_of
from isara_pl.run.randomness import derive_seed
from isara_pl.run.stages import count


def complete(
    model: Any,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    stops: Sequence[int],
    pad_token_id: int,
) -> list[list[int]]:
    """Complete prompts in one batch, padded on the left.

    What is drawn follows from the seeds of the whole batch. The process's own random state is as before afterwards.
    None of `stops`, which end a completion, comes first. Gives the new tokens of each prompt; what follows the one that
    ended it is padding. Raises InputError if `sampling.generation_config` does not suit transformers.
    """
    longest = max(len(ids) for ids in prompts)
    padded = [[pad_token_id] * (longest - len(ids)) + ids for ids in prompts]
    # from lengths: the padding token is often EOS, which may also stand inside a prompt
    mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    device = model.device
    config = generation_config(sampling, stops, pad_token_id)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(*seeds))
        try:
            output = model.generate(
                input_ids=torch.tensor(padded, device=device),  # (batch, longest)
                attention_mask=torch.tensor(mask, device=device),  # (batch, longest)
                generation_config=config,
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"transformers' generate refuses this sampling: {first_line(error)}") from error
    new: list[list[int]] = output[:, longest:].tolist()
    ends = set(stops)
    lengths = [next((place for place, token in enumerate(ids, start=1) if token in ends), len(ids)) for ids in new]
    count(done=len(new), prompt_tokens=sum(map(len, prompts)), generated_tokens=sum(lengths))
    return new


def generation_config(sampling: Sampling, stops: Sequence[int], pad_token_id: int) -> GenerationConfig:
    """Give what transformers' `generate` is told.

    Raises InputError if a field of `sampling.generation_config` has a value that transformers refuses.
    """
    fields: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "do_sample": sampling.do_sample,
        "num_beams": sampling.num_beams,
        "repetition_penalty": sampling.repetition_penalty,
        "no_repeat_ngram_size": sampling.no_repeat_ngram_size,
        "eos_token_id": list(stops),
        # no filter and no reader wants an empty completion; instruct models give one after a bare question
        "begin_suppress_tokens": list(stops),
        "pad_token_id": pad_token_id,
    }
    if sampling.do_sample:
        fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    try:
        return GenerationConfig(**fields, **sampling.generation_config)
    except (TypeError, ValueError) as error:
        raise InputError(f"sampling.generation_config: {error}") from None


def score(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], stops: Sequence[int], top: TopLogprobs
) -> list[TokenDistributions]:
    """Give the distributions at each token of the answers, each prompt and its answer in a pass of its own."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt + answer], device=model.device)
        wanted = torch.zeros_like(ids, dtype=torch.bool)
        wanted[:, len(prompt) - 1 :] = True
        with only_logits_of(model, wanted):
            logits = model(input_ids=ids, use_cache=False).logits[0]
        first = first_logprobs(logits[:1], stops, top)
        found.append(joined([first, top_logprobs(logits[1:], stops, top)]) if answer else first)
        count(done=1, prompt_tokens=ids.shape[1])
    return found
