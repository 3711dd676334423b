"""What tests of distillation share with others."""

from dataclasses import replace

import torch

from isara_pl.generation.distributions import TokenDistributions, TopLogprobs, top_logprobs
from isara_pl.generation.protocol import Sampling
from isara_pl.module import IsaraModule
from isara_pl.training.pairs import EncodedPair

ALL = 10**6  # tokens: more than any vocabulary


LINE = Sampling(max_new_tokens=12, temperature=0.8, top_p=0.9, stop_at_newline=True)


def dense(kept: TokenDistributions, vocabulary: int) -> torch.Tensor:
    """Give the probabilities of all tokens, where all were kept."""
    return torch.zeros(len(kept), vocabulary).scatter(1, kept.ids.long(), kept.log_probs.exp())


def plain(model: torch.nn.Module, prompt: list[int], answer: list[int], stops: list[int], end: int) -> torch.Tensor:
    """Give the probabilities at an answer's tokens and behind it, without the engine."""
    with torch.no_grad():
        probs: torch.Tensor = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 :].softmax(-1)
    probs[0, stops] = 0  # an answer has a first token
    probs[0] /= probs[0].sum()
    ending = probs[:, stops].sum(-1)
    probs[:, stops] = 0
    probs[:, end] = ending
    return probs


def lesson(pair: EncodedPair, vocabulary: int, seed: int, learned: bool) -> EncodedPair:
    """Give a pair some teacher's distributions."""
    logits = 2 * torch.randn(len(pair.input_ids), vocabulary, generator=torch.Generator().manual_seed(seed))
    kept = top_logprobs(logits[pair.prompt_length :], [], TopLogprobs(ALL, 0))
    return replace(pair, distributions=kept, learned=learned)


def plain_loss(module: IsaraModule, pairs: list[EncodedPair]) -> torch.Tensor:
    """Give the mean over all tokens of all pairs, one pair at a time, in plain PyTorch."""
    total, tokens = torch.zeros(()), 0
    for pair in pairs:
        ids = torch.tensor([pair.input_ids])
        log_q = module.adapted(input_ids=ids).logits[0, pair.prompt_length - 1 : -1].log_softmax(-1)
        if pair.learned:
            total = total + torch.nn.functional.nll_loss(log_q, ids[0, pair.prompt_length :], reduction="sum")
        if pair.distributions is not None:
            p = dense(pair.distributions, log_q.shape[1])
            total = total + module.distill_weight * torch.nn.functional.kl_div(log_q, p, reduction="sum")
        tokens += len(log_q)
    return total / tokens
