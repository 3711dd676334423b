"""In which type of numbers a model computes, and how exactly: found by trying."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from isara_pl.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HALF = (torch.bfloat16, torch.float16)
Widened = dict[Any, torch.dtype]  # of weights and of 4-bit layers
# of a product, relative: float32 itself is wrong by 1e-7 to 1e-6, TF32 by 4e-4, 16 bits by 1e-3 and more
_LARGEST_ERROR = 1e-5


def fast_precision(accelerator: str) -> tuple[str, str]:
    """Give the trainer precision that this machine computes fast, and why.

    On a CPU that only emulates bfloat16, generation is three times slower in it than in float32. `accelerator` is the
    trainer's: `cpu` passes over a GPU.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "the GPU computes bfloat16"
        return "16-mixed", "the GPU does not compute bfloat16"
    ask = getattr(torch.cpu, "get_capabilities", dict)  # not in every torch that is admitted
    capabilities: dict[str, Any] = ask()
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        return "bf16-mixed", "the CPU computes bfloat16"
    return "32-true", "the CPU does not compute bfloat16"


def base_dtype(name: str, precision: str) -> torch.dtype:
    """Give the type of a base's weights; `auto` is what the trainer's precision computes in."""
    if name != "auto":
        return DTYPES[name]
    if precision.startswith("bf16"):
        return torch.bfloat16
    return torch.float16 if precision.startswith("16") else torch.float32


def without_vain_casts(model: Any, is_merged: bool) -> torch.autocast:
    """Switch autocast off where all weights are of its type anyway: it would only look at every layer.

    That is so for a model with its adapter merged; by itself that is float32.
    """
    device = model.device.type
    casts = torch.is_autocast_enabled(device) and not (is_merged and model.dtype == torch.get_autocast_dtype(device))
    return torch.autocast(device, enabled=casts)


def widen(model: torch.nn.Module, widened: Widened) -> None:
    """Turn 16-bit weights into float32 ones, by which no bit of them is lost.

    4-bit weights stay as they are, and their layers compute in float32. Each weight and each 4-bit layer that is
    widened goes into `widened`, with its type before. Raises InputError if the memory does not suffice.
    """
    try:
        with torch.inference_mode(False):  # weights made in it could not be trained through
            for parameter in model.parameters():
                if parameter.dtype in _HALF:
                    widened[parameter] = parameter.dtype
                    parameter.data = parameter.data.float()
    except torch.OutOfMemoryError:
        narrow(widened)
        raise InputError(
            "model.evaluation_precision is float32, for which the device has not enough memory. Use trainer"
        ) from None
    layers: Iterable[Any] = model.modules()
    for layer in layers:
        if getattr(layer, "compute_dtype", None) in _HALF:  # what a layer of bitsandbytes turns its input to
            widened[layer] = layer.compute_dtype
            layer.compute_dtype = torch.float32


def narrow(widened: Widened) -> None:
    """Give weights and 4-bit layers the type again that they had before `widen`; `widened` is emptied."""
    with torch.inference_mode(False):
        while widened:
            part, dtype = widened.popitem()
            if isinstance(part, torch.nn.Parameter):
                part.data = part.data.to(dtype)
            else:
                part.compute_dtype = dtype


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
    return bool((product - exact).norm() <= _LARGEST_ERROR * exact.norm())


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
