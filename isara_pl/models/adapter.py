"""A LoRA adapter: its options, a fresh one on a base model, and one folded into its base's weights for a while."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from isara_pl.errors import InputError, first_line
from isara_pl.run.memory import is_out_of_memory
from isara_pl.run.notices import rank_zero_warn


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


class MergedWeights:
    """The weights of a base with its adapter folded in, beside the base's own.

    The sum of base and update is computed in float32 from the base itself, and rounded to its type once:
    merging and unmerging in place would wear the base off. Raises RuntimeError for a sharded base, whose forward pass
    would gather the own weights again and so leave the adapter out.
    """

    def __init__(self, model: PeftModel) -> None:
        if is_sharded(model):
            raise RuntimeError("a sharded base has no adapter folded in: its parts are gathered anew in each pass")
        self._model = model
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            self._merged = {weight: _merged(weight, layer) for weight, layer in adapted_weights(model)}
        self._own = {weight: weight.data for weight in self._merged}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Compute with the merged weights inside the block."""
        with self._model.disable_adapter():  # its update is in the weights
            self._set(self._merged)
            try:
                yield
            finally:
                self._set(self._own)

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Inside `in_use`, compute with the base's own weights inside the block."""
        self._set(self._own)
        try:
            yield
        finally:
            self._set(self._merged)

    def _set(self, weights: dict[torch.nn.Parameter, Tensor]) -> None:
        with torch.inference_mode(False):
            for weight, data in weights.items():
                weight.data = data


class Folding:
    """Folds an adapter into its base's weights for a while, and lays both aside."""

    def __init__(self, model: PeftModel) -> None:
        self._model = model
        self._merged: MergedWeights | None = None

    @property
    def is_in_use(self) -> bool:
        """Whether the adapter is folded in now."""
        return self._merged is not None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Compute with the adapter folded in inside the block, as far as that can be done; nested blocks do nothing."""
        if self._merged is not None:
            yield
            return
        self._merged = _fold_in(self._model)
        try:
            with self._merged.in_use() if self._merged else nullcontext():
                yield
        finally:
            self._merged = None

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Compute with the base alone inside the block."""
        with self._merged.set_aside() if self._merged else self._model.disable_adapter():
            yield


def _fold_in(model: PeftModel) -> MergedWeights | None:
    """Fold an adapter in; None where that cannot be done or the memory does not hold the weights twice."""
    if not can_merge(model):
        return None
    try:
        return MergedWeights(model)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    rank_zero_warn("the memory does not hold a copy of the weights with the adapter folded in: generating without")
    return None


def can_merge(model: PeftModel) -> bool:
    """Whether an adapter can be folded in: it is switched on, no weight quantised, sharded or shared by layers."""
    if is_sharded(model):
        return False
    uses = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    return all(
        weight is not None and weight.is_floating_point() and uses[id(weight)] == 1 and not layer.disable_adapters
        for weight, layer in _all_adapted(model)
    )


def changes_anything(adapter: Mapping[str, Tensor]) -> bool:
    """Whether an adapter's weights change what its base computes; a fresh one's do not."""
    return any(bool(weight.any()) for name, weight in adapter.items() if "lora_B" in name)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether this process holds only a part of a model's weights, as under `AdapterFSDP`."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def adapted_weights(model: PeftModel) -> Iterator[tuple[torch.nn.Parameter, LoraLayer]]:
    """Give the base's weights that an adapter changes, each with its part of the adapter."""
    return ((weight, layer) for weight, layer in _all_adapted(model) if weight is not None)


def _all_adapted(model: PeftModel) -> Iterator[tuple[torch.nn.Parameter | None, LoraLayer]]:
    for layer in model.modules():
        if isinstance(layer, ParamWrapper):  # of experts that are one weight of three dimensions
            yield layer.get_param(), layer
        elif isinstance(layer, LoraLayer):  # layers that a quantiser packed have no weight
            yield getattr(layer.get_base_layer(), "weight", None), layer


def _merged(weight: torch.nn.Parameter, layer: LoraLayer) -> Tensor:
    update: Tensor = layer.get_delta_weight("default")
    return (weight.data.float() + update.float()).to(weight.dtype)
