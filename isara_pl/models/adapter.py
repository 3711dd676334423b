"""A fresh LoRA adapter on a base model, and its options."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from isara_pl.errors import InputError, first_line


@dataclass(frozen=True)
class LoraOptions:
    """The adapter.

    Attributes:
        r: Rank of the update.
        alpha: Scale of the update; it is multiplied by alpha / r.
        dropout: Share of the adapter's inputs dropped while training.
        targets: Names of the layers that get an adapter; null takes every linear layer except the output.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise InputError(
                f"model.lora: r is {self.r} (allowed: at least 1), alpha is {self.alpha} (above 0), "
                f"dropout is {self.dropout} (at least 0 and below 1)"
            )


def with_adapter(base: PreTrainedModel, options: LoraOptions, name: str, seed: int) -> PeftModel:
    """Put a fresh adapter on a base model; it changes nothing before it is trained.

    Its weights follow from the seed alone, on every device and in every precision of 32 bits or fewer. `name` is what
    the user calls the model: the exported adapter refers to it. Raises InputError if the options do not fit the model.
    """
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.targets or "all-linear",
        # GPT-2's layers hold their weights the other way round
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in base.modules()),
        task_type="CAUSAL_LM",
    )
    # drawn on the CPU, also where Lightning makes another device the default; peft moves them to the base's. The
    # CPU's generator alone is seeded, since it alone is forked
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), _no_16_bits():
        torch.default_generator.manual_seed(seed)
        try:
            model = get_peft_model(base, config)
        except ValueError as error:
            raise InputError(
                f"model.lora: an adapter with these options does not fit {name} ({first_line(error)}). Give "
                "names of its layers in targets, or dropout 0 where experts get adapters, too"
            ) from error
    assert isinstance(model, PeftModel)
    own = model.peft_config["default"]
    own.base_model_name_or_path = name  # not the folder that it was found in
    # peft keeps them as a set, whose order, and so the file that is exported, differs between processes
    own.target_modules = sorted(own.target_modules)
    if own.target_parameters:  # of fused experts
        own.target_parameters = sorted(own.target_parameters)
    return model


@contextmanager
def _no_16_bits() -> Iterator[None]:
    """Make new weights in float32 inside the block where 16 bits are the default, as Lightning's bf16-true has it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(before, torch.float32))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
