"""The training step: its losses, its learning rate, and what makes it cheaper and leaves its loss as it is."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.modeling_layers import GradientCheckpointingLayer

from isara_pl.errors import InputError
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


# tokens of a row up to which plain matrix products are faster, both directions together: measured 3.4 times
# at 34 tokens, 1.3 times at 128, half as fast at 256
SHORT = 128
CURE = (
    "Lower model.learning_rate (a run that goes on needs --data.on_change continue for that), or start anew with "
    "trainer.precision 32-true"
)


@contextmanager
def lean_forward(model: PeftModel, length: int, compiled: bool) -> Iterator[None]:
    """Run the forward pass of a training step without work that autocast and torch do in vain.

    Not for gradient checkpointing, which runs layers again in the backward pass, outside this block. `length` is the
    tokens of a row. Compiled layers would keep one choice of attention for all lengths.
    """
    device = model.device.type
    casts = torch.is_autocast_enabled(device)
    with ExitStack() as inside:
        # peft widens every layer's input to the adapter's float32, and autocast narrows it again
        inside.enter_context(disable_input_dtype_casting(model, active=casts))
        half = casts or model.dtype != torch.float32
        if device == "cpu" and half and length <= SHORT and not compiled:
            # torch's own attention goes back through short 16-bit rows very slowly on a CPU
            inside.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def compile_layers(model: torch.nn.Module) -> None:
    """Have torch compile each decoder layer when it is first used; all share one compilation.

    Names of weights and what is saved stay as they are. Raises InputError if it has no layers that can be told.
    """
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise InputError("model.compile: the layers of this model are not those of transformers. Use false")
    for layer in layers:
        layer.compile(dynamic=True)


def check_losses(losses: Tensor, sample_ids: Sequence[str]) -> None:
    """Refuse to learn from a loss that is not finite.

    Raises InputError if one is NaN or infinite; the message names the samples.
    """
    named = [name for name, fine in zip(sample_ids, losses.isfinite().tolist(), strict=True) if not fine]
    if named:
        raise InputError(
            f"the loss is not finite (NaN or infinite) on the samples {', '.join(named)} of this batch; nothing was "
            f"learned from it. Look at these samples in pool.jsonl. {CURE}"
        )


def check_weights(weights: Iterable[Tensor], sample_ids: Sequence[str]) -> None:
    """Refuse to keep an adapter whose weights are not finite.

    `sample_ids` are those that it was trained on last. Raises InputError if one is NaN or infinite.
    """
    if not torch.stack([weight.isfinite().all() for weight in weights]).all():
        raise InputError(
            "weights of the adapter are not finite any more (NaN or infinite), since the step on the samples "
            f"{', '.join(sample_ids)}; they are kept nowhere. {CURE}"
        )


def scale_gradients(weights: Iterable[torch.nn.Parameter], factor: float) -> None:
    """Multiply the gradients that there are."""
    for weight in weights:
        if weight.grad is not None:
            weight.grad.mul_(factor)


def learning_rate_at(step: int, steps: int, peak: float, warmup_share: float) -> float:
    """Give the learning rate of an optimiser step: a linear rise to the peak, then half a cosine down to 0.

    `step` is one of the `steps` of the outer epoch, from 0.
    """
    warmup = math.ceil(warmup_share * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2
