"""The adapter as a folder that plain peft loads."""

import shutil
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from isara_pl.datamodule.checks import check_callbacks
from isara_pl.errors import InputError
from isara_pl.module import IsaraModule
from isara_pl.run.files import give_usual_permissions
from isara_pl.run.folder import run_folder
from isara_pl.run.trainer import finished_outer_epoch


class AdapterExport(Callback):
    """Writes the adapter to `adapter/` in the run folder after every outer epoch.

    It loads with `peft.PeftModel.from_pretrained(base, RUN / "adapter")`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse another module, and averages of weights: what is exported is what was measured."""
        if not isinstance(pl_module, IsaraModule):
            raise InputError(
                f"AdapterExport needs IsaraModule, whose adapter it writes, found {type(pl_module).__name__}. Take it "
                "out of trainer.callbacks"
            )
        check_callbacks(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the adapter after the last epoch of an outer epoch, unless nothing was trained."""
        run_dir = run_folder(trainer)
        if (
            isinstance(pl_module, IsaraModule)
            and run_dir is not None
            and finished_outer_epoch(trainer, pl_module.epochs_per_outer_epoch)
        ):
            write_adapter(pl_module, run_dir)


def write_adapter(module: IsaraModule, run_dir: Path) -> None:
    """Write `adapter/` into a run folder; what was there before is replaced only when all is written.

    Args:
        module: Whose adapter is written.
        run_dir: The run folder.
    """
    target, unfinished, previous = (
        run_dir / "adapter",
        run_dir / ".adapter-unfinished",
        run_dir / ".adapter-previous",
    )
    shutil.rmtree(unfinished, ignore_errors=True)
    # "auto" would look for the base on the hub
    module.adapted.save_pretrained(str(unfinished), save_embedding_layers=False)
    # peft's card is a form to be filled in; `isara-pl export` writes a real one
    (unfinished / "README.md").unlink(missing_ok=True)
    give_usual_permissions(unfinished)
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    unfinished.rename(target)
    shutil.rmtree(previous, ignore_errors=True)
