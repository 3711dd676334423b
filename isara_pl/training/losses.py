"""Context distillation: the model without demonstrations learns from itself with them."""

from typing import Any, Literal

import torch
from torch import Tensor

from isara_pl.training.pairs import IGNORED, Batch, answer_logits, summed_nll

Objective = Literal["sft", "distill", "sft+distill"]


def answer_losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Give what is learned from each pair, in one pass of the model, all of shape (batch,).

    The negative log-likelihood of its answer where that is learned, else 0; the divergence from its teacher where it
    has one, else 0, both summed over the answer's tokens, in nats; and the number of these tokens.
    """
    logits, targets = answer_logits(model, batch)
    counted = targets != IGNORED  # (batch, longest)
    taught = batch.get("taught")
    if taught is None:
        nll = summed_nll(logits, targets)
        return nll, torch.zeros_like(nll), counted.sum(dim=1)
    student = logits.float().log_softmax(dim=-1)  # (tokens, vocabulary), once for both: with the vocabulary it is large
    # labels are moved to the positions that predict them, as in `answer_logits`
    with_teacher = torch.nn.functional.pad(taught["tokens"][:, 1:], (0, 1))  # (batch, longest)
    losses = torch.zeros(2, *targets.shape, dtype=torch.float32, device=logits.device)
    losses[0, counted] = -student.gather(1, targets[counted][:, None])[:, 0]
    losses[1, with_teacher] = divergence(
        student[with_teacher[counted]], taught["ids"], taught["log_probs"], taught["rest"]
    )
    nll, divergences = losses.sum(dim=-1)
    return torch.where(taught["learned"], nll, 0), divergences, counted.sum(dim=1)


def divergence(student: Tensor, ids: Tensor, log_probs: Tensor, rest: Tensor) -> Tensor:
    """Give KL(teacher ‖ student) of each token, in nats: context distillation's loss.

    The objective is that of arXiv 2112.00861 and arXiv 2209.15189: the student, without context, learns
    the distribution that the same model has with it. Of the teacher, k likeliest tokens are known, and the probability
    of all others together, which are compared as one: Σ p ln(p/q) over the k tokens, and of the rest's masses. That is
    the whole divergence where k is the vocabulary, and never more than it elsewhere.

    Args:
        student: The student's log-probabilities, of shape (n, vocabulary).
        ids: The teacher's likeliest tokens, of shape (n, k).
        log_probs: The teacher's log-probabilities of these tokens, of shape (n, k); −∞ counts nothing.
        rest: The teacher's probability of all others, of shape (n,).

    Returns:
        Of shape (n,), float32.
    """
    ids, log_probs, rest = ids.long(), log_probs.float(), rest.float()  # Lightning casts batches in some precisions
    probs = log_probs.exp()
    known = torch.where(probs > 0, probs * (log_probs - student.gather(1, ids)), 0).sum(dim=-1)
    if ids.shape[1] == student.shape[1]:
        return known
    # added up by itself: what the likeliest leave of 1 would be lost in rounding where the student is sure
    left = student.scatter(1, ids, -torch.inf).logsumexp(dim=-1)
    return known + torch.where(rest > 0, torch.special.xlogy(rest, rest) - rest * left, 0)
