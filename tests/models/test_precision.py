import pytest
import torch
from helpers.arithmetic import product_of_16_bit_parts

from isara_pl.models.loading import load_causal_lm
from isara_pl.models.precision import are_16_bit, computes_exactly


@pytest.mark.parametrize(
    ("dtype", "exactly"),
    [(torch.float32, True), (torch.float64, True), (torch.bfloat16, False), (torch.float16, False)],
)
def test_16_bit_weights_are_not_computed_with_exactly(tiny_llama, dtype, exactly):
    assert computes_exactly(load_causal_lm(tiny_llama, dtype)) is exactly


def test_nor_are_float32_weights_under_mixed_precision_or_where_products_are_rounded(tiny_llama, monkeypatch):
    model = load_causal_lm(tiny_llama)
    with torch.autocast("cpu", torch.bfloat16):
        assert not computes_exactly(model)
    assert computes_exactly(model)
    monkeypatch.setattr(torch.nn.functional, "linear", product_of_16_bit_parts)
    assert not computes_exactly(model)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_numbers_of_16_bits_are_known_in_float32(half):
    numbers = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert not are_16_bit(numbers)
    assert are_16_bit(numbers.to(half).float())
