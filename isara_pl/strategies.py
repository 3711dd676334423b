"""Training a model that has outgrown one card: its base in parts over all processes, its adapter whole in each."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import PreTrainedModel

from isara_pl.errors import InputError


class AdapterFSDP(DDPStrategy):
    """`--trainer.strategy adapter_fsdp`: shards the frozen base over all processes; each trains the whole adapter.

    Only what never changes is in parts. So a checkpoint is that of a single process, which can go on from it, and so
    are the exported adapter, clipping and the optimiser; gradients are averaged as ddp does it. Between forward
    passes each process keeps 1/n of the base, in a pass one layer more. A part of a model cannot generate by itself:
    candidates come from servers (`--model.generator vllm`), and whatever is measured is measured by all processes in
    step, each on all items. To load, each process needs memory for the whole base in the CPU's memory, whose parts it
    then gives away one layer after the other.
    """

    shards_model = True

    def shard(self, base: PreTrainedModel, evaluation_precision: str) -> None:
        """Keep only this process's part of the base's frozen weights, on its device; adapters in it stay whole.

        Raises InputError if the base is quantised, does not say which of its parts are layers, or would have to be
        widened to be measured in `evaluation_precision`.
        """
        if getattr(base, "is_quantized", False):
            raise InputError(
                "trainer.strategy is adapter_fsdp, which shards weights of 16 or 32 bits. Allowed: "
                "model.quantization null, or ddp, where each process holds the whole model"
            )
        kinds = set(base._no_split_modules or ())
        layers = [part for part in base.modules() if type(part).__name__ in kinds]
        if not layers:
            raise InputError(
                f"trainer.strategy is adapter_fsdp, but {type(base).__name__} names no layers (_no_split_modules) that "
                "could be gathered one after the other. Use ddp"
            )
        if evaluation_precision == "float32" and base.dtype != torch.float32:
            raise InputError(
                f"model.evaluation_precision is float32, but the base is in {base.dtype}, and parts of it cannot be "
                "widened. With trainer.strategy adapter_fsdp allowed: trainer, or model.dtype float32"
            )
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        trained = {parameter for parameter in base.parameters() if parameter.requires_grad}
        for part in (*layers, base):
            fully_shard(part, mesh=mesh, ignored_params=trained)
            with torch.inference_mode(False):  # memory first taken inside of it could not be trained through
                cast(FSDPModule, part).unshard()
                cast(FSDPModule, part).reshard()

    def setup(self, trainer: Trainer) -> None:
        """Move what is not sharded to its device, and set the optimiser up; no DDP is wrapped around the module."""
        super(ParallelStrategy, self).setup(trainer)

    def _setup_model(self, model: nn.Module) -> Any:
        return model

    @contextmanager
    def tensor_init_context(self, empty_init: bool | None = None) -> Iterator[None]:
        """Load on the CPU: the whole model may not fit on the device."""
        with torch.device("cpu"):
            yield

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the adapter's gradients over all processes.

        Those of earlier batches of a step are the same in all of them already, and stay as they are.
        """
        module: LightningModule | None = self.lightning_module
        assert module is not None
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients]) / self.world_size
        torch.distributed.all_reduce(together)
        for gradient, mean in zip(gradients, torch.split(together, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


StrategyRegistry.register("adapter_fsdp", AdapterFSDP, description="a frozen base in parts over all processes")
