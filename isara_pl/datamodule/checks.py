"""What a trainer must be like for a run: refused in a sentence before anything is grown."""

from typing import Any

from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

from isara_pl.errors import InputError
from isara_pl.module import IsaraModule
from isara_pl.strategies import AdapterFSDP


def check_processes(trainer: Any, batch_size: int) -> None:
    """Refuse several processes that could not split growing, training and measuring."""
    strategy, count = trainer.strategy, trainer.world_size
    if isinstance(strategy, AdapterFSDP):
        _check_sharded(trainer)
    if count == 1:
        return
    # spawned and forked processes take what the data module knows with them when they end
    whole = isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
    if not whole or strategy._start_method != "popen":
        raise InputError(
            f"trainer.strategy is {type(strategy).__name__} with {count} processes. Allowed: ddp (not ddp_spawn, "
            "ddp_fork or ddp_notebook), where each process generates with a whole model; "
            "adapter_fsdp, where servers generate; or trainer.devices 1"
        )
    if trainer._accelerator_connector.use_distributed_sampler:
        raise InputError(
            f"trainer.use_distributed_sampler is true with {count} processes, but IsaraDataModule splits its batches "
            "itself; use Trainer(use_distributed_sampler=False)"
        )
    if batch_size < count:
        raise InputError(
            f"data.batch_size is {batch_size}, the pairs of a batch over all processes, of which there are {count}; "
            f"allowed: at least {count}"
        )


def _check_sharded(trainer: Any) -> None:
    """Refuse what a part of a model cannot do."""
    if trainer.state.fn == "predict":
        raise InputError(
            "trainer.strategy is adapter_fsdp, which does not predict. Use one process, or the exported adapter"
        )
    module = trainer.lightning_module
    by_itself = type(module).generate is IsaraModule.generate and module.served is None
    if trainer.state.fn == "fit" and by_itself:
        raise InputError(
            "trainer.strategy is adapter_fsdp with model.generator builtin, but a part of a model cannot generate by "
            "itself. Give a server: --model.generator vllm; or use ddp, where each process holds the whole model"
        )


def check_reloading(trainer: Any) -> None:
    """Refuse a trainer that would ask for the training set only once."""
    if trainer.reload_dataloaders_every_n_epochs != 1:
        raise InputError(
            "IsaraDataModule needs Trainer(reload_dataloaders_every_n_epochs=1), found "
            f"{trainer.reload_dataloaders_every_n_epochs}: otherwise later outer epochs would never be grown"
        )


def check_epochs(trainer: Any, outer_epochs: int, epochs_per_outer_epoch: int) -> None:
    """Refuse a trainer or a module that would count other outer epochs than the data, or not stop where told to."""
    of_module = getattr(trainer.lightning_module, "epochs_per_outer_epoch", epochs_per_outer_epoch)
    if of_module != epochs_per_outer_epoch:
        raise InputError(
            f"{type(trainer.lightning_module).__name__} has epochs_per_outer_epoch={of_module} and IsaraDataModule "
            f"{epochs_per_outer_epoch}: learning rate and optimiser would begin anew at other places than the pool "
            "grows. Give both the same"
        )
    epochs = outer_epochs * epochs_per_outer_epoch
    if trainer.max_epochs != epochs and not trainer.fast_dev_run:  # which has one epoch, whatever was asked for
        raise InputError(
            f"IsaraDataModule needs Trainer(max_epochs={epochs}), found {trainer.max_epochs}: it has outer_epochs="
            f"{outer_epochs} with epochs_per_outer_epoch={epochs_per_outer_epoch}"
        )
    if trainer.min_epochs or trainer.min_steps:
        raise InputError(
            f"trainer.min_epochs is {trainer.min_epochs} and trainer.min_steps {trainer.min_steps}: where α or another "
            "callback ends the run, Lightning would train on, on a pool that does not grow any more. Leave both out; "
            "a run goes on longer with a lower alpha_stopping.alpha, or with more patience of what else stops it"
        )
