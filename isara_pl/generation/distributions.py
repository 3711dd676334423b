"""What a model finds likely at each token of an answer: the likeliest tokens, and what is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TopLogprobs:
    """What is kept of the distributions of an answer's tokens."""

    count: int  # k, likeliest tokens of which the log-probability is kept; more than the vocabulary keeps all
    end_id: int  # token that takes the mass of all that end an answer


@dataclass(frozen=True)
class TokenDistributions:
    """Distributions of the next token at n places of an answer, each as its k likeliest tokens.

    The last place is behind the answer, where it ends.
    """

    ids: Tensor  # the likeliest tokens, of shape (n, k), int32
    log_probs: Tensor  # their log-probabilities, of shape (n, k), float32; −∞ for what cannot come
    rest: Tensor  # probability of all other tokens together, of shape (n,), float32; 0 where k is the vocabulary

    def __len__(self) -> int:
        return len(self.rest)

    def cpu(self) -> "TokenDistributions":
        """Give the same on the CPU."""
        return TokenDistributions(self.ids.cpu(), self.log_probs.cpu(), self.rest.cpu())

    def rows(self, begin: int, end: int) -> "TokenDistributions":
        """Give some of the places."""
        return self.at(slice(begin, end))

    def at(self, index: Any) -> "TokenDistributions":
        """Give some of the places, or of rows of places. `index` is one for a tensor of `rest`'s shape."""
        return TokenDistributions(self.ids[index], self.log_probs[index], self.rest[index])


def joined(parts: Sequence[TokenDistributions]) -> TokenDistributions:
    """Put distributions one after the other. There is at least one; all have the same k."""
    return TokenDistributions(
        torch.cat([part.ids for part in parts]),
        torch.cat([part.log_probs for part in parts]),
        torch.cat([part.rest for part in parts]),
    )


def without_ends(logits: Tensor, stops: Sequence[int]) -> Tensor:
    """Give logits of which nothing that ends an answer can come: those of first tokens.

    `logits` are of shape (n, vocabulary). A tokenizer may know more tokens than the model has outputs.
    """
    ends = [token for token in stops if token < logits.shape[-1]]
    return logits.float().index_fill(1, torch.tensor(ends, dtype=torch.long, device=logits.device), -torch.inf)


def top_logprobs(logits: Tensor, stops: Sequence[int], top: TopLogprobs) -> TokenDistributions:
    """Give the likeliest tokens of each distribution, on the CPU.

    `logits` are of shape (n, vocabulary), −∞ where a token cannot come. The mass of all `stops`, which end an answer,
    goes to `top.end_id`.
    """
    return likeliest_tokens(logits, end_tokens(logits, stops, top), top).cpu()


def first_logprobs(logits: Tensor, stops: Sequence[int], top: TopLogprobs) -> TokenDistributions:
    """As `top_logprobs`, of first tokens: an answer has one, so none that ends it has any mass there."""
    return top_logprobs(without_ends(logits, stops), stops, top)


def end_tokens(logits: Tensor, stops: Sequence[int], top: TopLogprobs) -> Tensor:
    """Give all tokens whose mass goes to `top.end_id`, where the logits lie."""
    return torch.tensor(
        sorted(token for token in {*stops, top.end_id} if token < logits.shape[-1]), device=logits.device
    )


def likeliest_tokens(logits: Tensor, ends: Tensor, top: TopLogprobs) -> TokenDistributions:
    """Give the likeliest tokens of each distribution, where the logits lie; nothing here waits for a device.

    `ends` are those of `end_tokens`.
    """
    log_probs = logits.float().log_softmax(dim=-1)
    ending = log_probs[:, ends].logsumexp(dim=-1)
    log_probs.index_fill_(1, ends, -torch.inf)  # in place: with the vocabulary each copy is large
    log_probs[:, top.end_id] = ending
    likeliest = log_probs.topk(min(top.count, log_probs.shape[-1]))
    # what is left, added up by itself: 1 minus the others would leave rounding errors where nothing is left
    rest = log_probs.scatter_(1, likeliest.indices, -torch.inf).exp_().sum(dim=-1)
    return TokenDistributions(likeliest.indices.int(), likeliest.values, rest)
