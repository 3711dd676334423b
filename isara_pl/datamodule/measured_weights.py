"""Which weights were measured, and which outer epoch of the run their figures stand under."""

from lightning.pytorch import LightningModule, Trainer

from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.module import PRETRAINED, IsaraModule
from isara_pl.results.metrics import FILE, read_weights
from isara_pl.run.checkpoints import weights_hash
from isara_pl.run.folder import run_folder


def weights_of(module: LightningModule) -> str:
    """Name the weights of a module: those that training changes decide."""
    if isinstance(module, IsaraModule):
        return module.weights()
    return weights_hash({name: weight for name, weight in module.named_parameters() if weight.requires_grad})


def outer_epoch_of_weights(trainer: Trainer, module: LightningModule, data: IsaraDataModule) -> int | None:
    """Give the outer epoch at whose end the weights stand that are measured; 0 for the pretrained model.

    None where they stand at the end of none of this run's, so that their figures belong in no row of it.
    """
    if data.within_outer_epoch:
        return None
    outer_epoch, weights = data.trained_outer_epochs, weights_of(module)
    if isinstance(module, IsaraModule) and weights.startswith(PRETRAINED) != (outer_epoch == 0):
        return None
    run_dir = run_folder(trainer)
    if trainer.state.fn == "fit" or run_dir is None:
        return outer_epoch
    return outer_epoch if read_weights(run_dir / FILE).get(outer_epoch, weights) == weights else None
