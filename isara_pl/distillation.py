"""Context distillation: the model without demonstrations learns from itself with them."""

from typing import Any, Literal

import torch
from torch import Tensor

from isara_pl.sft import IGNORED, Batch, Taught, answer_logits, summed_nll

Objective = Literal["sft", "distill", "sft+distill"]


def answer_losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Give what is learned from each pair, in one pass of the model.

    Args:
        model: A causal LM.
        batch: Pairs of `isara_pl.sft.collate`.

    Returns:
        For each pair, all of shape (batch,): the negative log-likelihood of its answer where that is learned, else 0;
        the divergence from its teacher where it has one, else 0, both summed over the answer's tokens, in nats;
        and the number of these tokens.
    """
    logits, targets = answer_logits(model, batch)
    tokens = (targets != IGNORED).sum(dim=1)
    nll = summed_nll(logits, targets)
    taught = batch.get("taught")
    if taught is None:
        return nll, torch.zeros_like(nll), tokens
    return nll * taught["learned"], _summed_divergence(logits, targets, taught), tokens


def _summed_divergence(logits: Tensor, targets: Tensor, taught: Taught) -> Tensor:
    # labels are moved to the positions that predict them, as in `answer_logits`
    with_teacher = torch.nn.functional.pad(taught["tokens"][:, 1:], (0, 1))  # (batch, longest)
    divergences = torch.zeros(targets.shape, dtype=torch.float32, device=logits.device)
    divergences[with_teacher] = divergence(
        logits[with_teacher[targets != IGNORED]], taught["ids"], taught["log_probs"], taught["rest"]
    )
    return divergences.sum(dim=1)


def divergence(logits: Tensor, ids: Tensor, log_probs: Tensor, rest: Tensor) -> Tensor:
    """Give KL(teacher ‖ student) of each token, in nats: context distillation's loss.

    The objective is that of arXiv 2112.00861, section 2.3, and arXiv 2209.15189: the student, without context, learns
    the distribution that the same model has with it. Of the teacher, k likeliest tokens are known, and the probability
    of all others together, which are compared as one: Σ p ln(p/q) over the k tokens, and of the rest's masses. That is
    the whole divergence where k is the vocabulary, and never more than it elsewhere.

    Args:
        logits: The student's, of shape (n, vocabulary).
        ids: The teacher's likeliest tokens, of shape (n, k).
        log_probs: The teacher's log-probabilities of these tokens, of shape (n, k); −∞ counts nothing.
        rest: The teacher's probability of all others, of shape (n,).

    Returns:
        Of shape (n,), float32.
    """
    student = logits.float().log_softmax(dim=-1)  # (n, vocabulary)
    of_likeliest = student.gather(1, ids.long())  # (n, k)
    probs = log_probs.exp()
    known = torch.where(probs > 0, probs * (log_probs - of_likeliest), 0).sum(dim=-1)
    # the student's mass of the rest, by what the others leave; no smaller than rounding can tell
    left = torch.log1p(-of_likeliest.exp().sum(dim=-1).clamp(max=1 - torch.finfo(torch.float32).eps))
    return known + torch.where(rest > 0, torch.special.xlogy(rest, rest) - rest * left, 0)
