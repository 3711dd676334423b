"""What the sections of gpu_check.py share: what is checked, the rows that they give, and the device's memory."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from benchmark import MATMUL_SHAPES, Ceiling, ceiling
from peft import LoraConfig, PeftModel, get_peft_model
from shapes import load_shape

DTYPE, PRECISION = torch.bfloat16, "bf16-mixed"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was measured or checked.
        value: The figure, or a word; None where there is none.
        unit: Of the figure.
        note: What it must be read with, or why there is none.
        failed: Whether something did not work.
        section: The section; whoever runs sections sets it.
    """

    what: str
    value: float | str | None = None
    unit: str = ""
    note: str = ""
    failed: bool = False
    section: str = ""


@dataclass
class Check:
    """What all sections are told.

    Attributes:
        device: `cuda`, or `cpu` to try the sections themselves with tiny sizes.
        shape: The model, one of `shapes.SHAPES`.
        generation_tokens: The engine's budget.
        rates: Figures that a later section compares with, by name.
    """

    device: str
    shape: str
    generation_tokens: Any
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def small(self) -> bool:
        """Whether only the code is tried."""
        return self.device == "cpu"

    @property
    def patience(self) -> int:
        """How many times the usual seconds a section may take: a CPU is often shared."""
        return 3 if self.small else 1

    @cached_property
    def limits(self) -> Ceiling:
        """What the device gives at best, measured once."""
        return ceiling(self.device, DTYPE, MATMUL_SHAPES[:1] if self.small else MATMUL_SHAPES)

    def adapted_model(self) -> PeftModel:
        """Load the shape on the device, with a fresh adapter on all linear layers."""
        model = load_shape(self.shape, self.device, DTYPE)
        return get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")).eval()

    def free_memory(self) -> None:
        """Give back what nobody holds any more, and begin to look for the peak anew."""
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch types most of this module, not this
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self, of: str) -> Iterator[Row]:
        """Give the most memory that tensors had since `free_memory`; nothing where no GPU counts it."""
        if self.device == "cuda":
            yield Row(f"{of}: peak memory", torch.cuda.max_memory_allocated() / 1e9, "GB")


def share(value: float, most: float, of: Literal["matmul", "copy"]) -> str:
    """Say how much of a measured ceiling a figure is."""
    return f"{value / most:.1%} of the {of} peak"
