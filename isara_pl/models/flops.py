"""Floating-point operations of a transformer, 2 for each multiply-add, as its forward passes happen.

Counted are the matrices of linear layers and the products inside attention (whole rectangles, as the kernels compute
them), padding included. Experts of a mixture, norms and activations are not.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from isara_pl.models.loading import cache_name
from isara_pl.run.stages import count


class Flops:
    """What the layers of a model compute.

    `layers` is a model without its output layer: the decoder of a causal LM of transformers, or an encoder. Weights
    that are trained beside frozen ones are taken for an adapter.
    """

    def __init__(self, layers: Any) -> None:
        frozen, trained = _weights(layers)
        self.weights = frozen or trained
        self.adapter = trained if frozen else 0
        text = layers.config.get_text_config()
        heads = getattr(text, "num_attention_heads", None)
        self.attention = 0  # recurrent models have none
        if isinstance(heads, int) and heads > 0:
            width = getattr(text, "head_dim", None) or text.hidden_size // heads
            self.attention = text.num_hidden_layers * heads * width

    def forward(self, tokens: int, pairs: int) -> int:
        """Give what a forward pass takes whose adapter is folded in.

        `pairs` are those of tokens of which one attends to the other.
        """
        return 2 * self.weights * tokens + 4 * self.attention * pairs  # scores, and their product with the values

    def training(self, tokens: int, pairs: int, gradient_checkpointing: bool) -> int:
        """Give what a forward pass and its backward pass take: gradients of frozen weights are not computed.

        Gradient checkpointing computes the layers once more in the backward pass.
        """
        again = 1 if gradient_checkpointing else 0
        weights = (2 + again) * self.weights + (3 + again) * self.adapter
        return 2 * weights * tokens + 4 * (3 + again) * self.attention * pairs

    def completion(self, prompt_tokens: int, new_tokens: int) -> int:
        """Give what completing one prompt takes, without the output layer, which does not depend on the prompt."""
        computed = prompt_tokens + max(new_tokens - 1, 0)
        # a prompt sees itself at once, each further token all before it and itself
        return self.forward(computed, prompt_tokens**2 + sum(range(prompt_tokens + 1, computed + 1)))


def count_flops(model: Any, gradient_checkpointing: bool) -> Flops:
    """Let a causal LM count what each forward pass computes, for the stage that it happens in.

    Call it when the adapter is in place. Gives what its layers compute.
    """
    layers = model.get_decoder()
    flops = Flops(layers)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))  # ids, or embeddings
        rows, length = inputs.shape[:2]
        past = kwargs.get(cache_name(kwargs)) if flops.attention else None
        pairs = rows * length * (length + (0 if past is None else int(past.get_seq_length())))
        if torch.is_grad_enabled():
            count(flops=flops.training(rows * length, pairs, gradient_checkpointing))
        else:
            count(flops=flops.forward(rows * length, pairs))

    layers.register_forward_pre_hook(before, with_kwargs=True)
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_hook(_count_head)
    return flops


def _count_head(_: nn.Module, args: tuple[Any, ...], logits: Tensor) -> None:
    # from what comes out: only some of the positions that go in may be computed
    passes = 2 if torch.is_grad_enabled() else 1
    count(flops=2 * passes * args[0].shape[-1] * logits.numel())


def _weights(model: nn.Module) -> tuple[int, int]:
    """Count the weights of linear layers: those that are frozen, and those that are trained."""
    frozen = trained = 0
    for part in model.modules():
        if isinstance(part, nn.Linear):
            size = part.in_features * part.out_features  # a 4-bit weight's own shape is packed
        elif isinstance(part, Conv1D):
            size = part.weight.numel()
        else:
            continue
        if part.weight.requires_grad:
            trained += size
        else:
            frozen += size
    return frozen, trained
