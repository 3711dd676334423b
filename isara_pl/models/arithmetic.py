"""How exactly a model computes here and now, found by trying."""

from typing import Any

import torch
from torch import Tensor

# of a product, relative: float32 itself is wrong by 1e-7 to 1e-6, TF32 by 4e-4, 16 bits by 1e-3 and more
LARGEST_ERROR = 1e-5


def computes_exactly(model: Any) -> bool:
    """Whether products of a model's numbers are as exact as those of float32.

    The type of its weights alone does not tell: autocast, TF32 and `torch.set_float32_matmul_precision` round inside
    of a product. So one is computed where the model is, and held against float64.
    """
    draw = torch.Generator("cpu").manual_seed(0)
    rows, weights = (
        torch.randn(count, 512, generator=draw, dtype=torch.float32, device="cpu").to(model.dtype)
        for count in (64, 256)
    )
    product = torch.nn.functional.linear(rows.to(model.device), weights.to(model.device)).cpu().double()
    exact = rows.double() @ weights.double().T
    return bool((product - exact).norm() <= LARGEST_ERROR * exact.norm())


def are_16_bit(numbers: Tensor) -> bool:
    """Whether all of a model's numbers would fit into 16 bits: then it has computed in them, whatever their type."""
    return any(torch.equal(numbers.to(half).to(numbers.dtype), numbers) for half in (torch.bfloat16, torch.float16))


def allowed_difference(model: Any, logits: Tensor) -> float:
    """Give by how much logits of a row may differ in the mean where they are computed in another way.

    In shares of their spread SmolLM2's rounding makes 3e-5 in float32, .005 in TF32, .04 in bfloat16, .08 in float16; a
    wrong mask makes .3 and more. `logits` are those of one way, and finite.
    """
    exactly = computes_exactly(model) and not are_16_bit(logits)
    return float(logits.std()) * (1e-3 if exactly else 0.2)
