"""The two kernels of a decoding step that are not matrix products with weights: attention and drawing."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from benchmark import seconds_each
from gpu_rows import DTYPE, Check, Row, share
from shapes import load_shape, random_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from isara_pl.errors import first_line
from isara_pl.generation.protocol import Sampling
from isara_pl.generation.writing import next_tokens


@torch.inference_mode()
def attention(check: Check) -> Iterator[Row]:
    """Time the attention of one decoding step by every way that torch has."""
    config = load_shape("smollm2", "cpu", DTYPE).config if check.shape == "smollm2" else random_config(check.shape)
    rows, columns = (4, 24) if check.small else (256, 400)
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    query = torch.randn(rows, heads, 1, width, device=check.device, dtype=DTYPE)
    keys, values = (torch.randn(rows, heads, columns, width, device=check.device, dtype=DTYPE) for _ in range(2))
    # prompts of other lengths, padded on the left
    begins = torch.arange(rows, device=check.device) % (columns // 2)
    mask = (torch.arange(columns, device=check.device) >= begins[:, None])[:, None, None]  # (rows, 1, 1, columns)

    def by_products() -> torch.Tensor:
        scores = (query @ keys.transpose(-1, -2)) * width**-0.5
        product: torch.Tensor = scores.masked_fill(~mask, -torch.inf).float().softmax(dim=-1).to(DTYPE) @ values
        return product

    def by(backend: SDPBackend, given: torch.Tensor | None) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(query, keys, values, attn_mask=given)

        return run

    ways = {
        "torch's own choice": lambda: scaled_dot_product_attention(query, keys, values, attn_mask=mask),
        "efficient": by(SDPBackend.EFFICIENT_ATTENTION, mask),
        "cudnn": by(SDPBackend.CUDNN_ATTENTION, mask),
        "flash, without a mask": by(SDPBackend.FLASH_ATTENTION, None),
        "math": by(SDPBackend.MATH, mask),
        "matmul, softmax, matmul": by_products,
    }
    moved = (keys.numel() + values.numel()) * DTYPE.itemsize
    yield Row("attention", float(rows), "rows", f"{columns} columns, {heads} heads of {width}")
    for name, way in ways.items():
        try:
            seconds = seconds_each(way, check.device)
        except RuntimeError as error:
            yield Row(name, note=f"refused: {first_line(error)}")
            continue
        rate = moved / seconds
        note = f"{rate / 1e9:.0f} GB/s, {share(rate, check.limits.bytes_per_second, 'copy')}"
        yield Row(name, seconds * 1e6, "us", note)


@torch.inference_mode()
def drawing(check: Check) -> Iterator[Row]:
    """Time the drawing of a token for every row, from a distribution as a trained model's and from a flat one."""
    rows = 4 if check.small else 256
    vocabulary = load_shape("smollm2", "cpu", DTYPE).config.vocab_size if check.shape == "smollm2" else random_config(
        check.shape
    ).vocab_size  # fmt: skip
    noise = torch.randn(rows, vocabulary, device=check.device)
    uniform = torch.rand(rows, dtype=torch.float64, device=check.device)
    yield Row("drawing", float(rows), "rows", f"{vocabulary} tokens")
    for spread, kind in ((4.0, "peaked"), (1.0, "flat")):
        for top_p in (0.95, 1.0):
            draw = partial(next_tokens, spread * noise, Sampling(temperature=0.9, top_p=top_p), uniform)
            yield Row(f"top_p {top_p}, {kind}", seconds_each(draw, check.device) * 1e3, "ms")
            if kind == "flat":
                continue
            with patch.dict(os.environ, {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}):
                torch.use_deterministic_algorithms(True)
                try:
                    seconds = seconds_each(draw, check.device)
                finally:
                    torch.use_deterministic_algorithms(False)
            yield Row(f"top_p {top_p}, {kind}, deterministic", seconds * 1e3, "ms")
