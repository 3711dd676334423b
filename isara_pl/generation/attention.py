"""Which of torch's kernels of attention a GPU uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Leave cuDNN's attention out inside the block.

    It makes a plan for every new shape, and here nearly every batch has a length of its own: others saw half a second
    for each, forwards and backwards (github.com/modelscope/FunASR/issues/3704).
    """
    was = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]  # torch gives it no types
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)
