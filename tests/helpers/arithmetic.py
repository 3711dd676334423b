"""What tests of arithmetic share with others."""

from torch import Tensor


def product_of_16_bit_parts(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply as 16-bit kernels do: in 16 bits, and for each number of rows in other parts."""
    inputs, weight = inputs.bfloat16(), weight.bfloat16()
    cut = inputs.shape[:-1].numel() % inputs.shape[-1]
    parts = inputs[..., :cut] @ weight[:, :cut].T, inputs[..., cut:] @ weight[:, cut:].T
    product = parts[0].float() + parts[1].float()
    return product if bias is None else product + bias
