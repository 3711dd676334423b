"""The data module's part in a run: its pool is opened in the run folder, locked, and remembered by checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from isara_pl.datamodule.growing import check_epochs, check_processes, check_reloading, pool_of_first
from isara_pl.datamodule.opening import has_checkpoint, open_pool, seeds_to_use
from isara_pl.datamodule.teaching import Lessons
from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, is_grown
from isara_pl.growth.samples import Sample
from isara_pl.run.conditions import OnChange
from isara_pl.run.folder import RunLock, run_folder
from isara_pl.run.processes import ALONE, Processes
from isara_pl.run.trainer import trained_epochs


class PooledDataModule(LightningDataModule, ABC):
    """A data module whose samples are a pool in the run folder, and which knows how far a run is.

    Args:
        seeds: What the pool begins with.
        outer_epochs: Most outer epochs.
        epochs_per_outer_epoch: Passes over the training set in each outer epoch.
        batch_size: Pairs of a training batch, over all processes.
        on_change: What a resume under other conditions does.
    """

    def __init__(
        self,
        seeds: Sequence[Sample],
        outer_epochs: int,
        epochs_per_outer_epoch: int,
        batch_size: int,
        on_change: OnChange,
    ) -> None:
        super().__init__()
        self.seeds = list(seeds)
        self.outer_epochs = outer_epochs
        self.epochs_per_outer_epoch = epochs_per_outer_epoch
        self.batch_size = batch_size
        self.on_change: OnChange = on_change
        self.pool: SamplePool | None = None
        self.lessons: Lessons | None = None
        self._taught: list[str] = []
        self._grown: set[int] = set()
        self._checkpointed: dict[str, Any] = {}
        self._lock = RunLock()
        self._trained_outer_epochs = 0
        self._within = False
        self._exhausted_epoch: int | None = None
        self._trained_in: Path | None = None
        self._holds_a_fit = False  # the folder, of which this fit should go on from a checkpoint

    @abstractmethod
    def conditions(self) -> dict[str, Any]:
        """Give what the pool depends on here, by the names of the options."""

    def outer_epoch_of(self, epoch: int) -> int:
        """Give the outer epoch, from 1, that an epoch, from 0, belongs to."""
        return epoch // self.epochs_per_outer_epoch + 1

    def setup(self, stage: str) -> None:
        """Open the pool in the trainer's folder, before anything is written there."""
        if stage == "fit":
            self._checked_trainer()
            # nothing of an earlier fit; Lightning loads the state of a checkpoint after this
            self._grown, self._exhausted_epoch, self._checkpointed = set(), None, {}
            self._trained_outer_epochs, self._within = 0, False
            self._taught, self.lessons = [], None
        elif self.trainer is not None:
            check_processes(self.trainer, self.batch_size)
        if self.trainer is not None:
            self.pool = pool_of_first(self.processes, self._opened_pool)
            self.seeds = self.pool.up_to(0) if self.pool else self.seeds

    def _opened_pool(self) -> SamplePool | None:
        trainer: Any = self.trainer
        folder = run_folder(trainer)
        if folder is not None and trainer.state.fn != "predict":  # which writes nothing that another run reads
            self._lock.acquire(folder)
        self.seeds = seeds_to_use(trainer, folder, self.seeds, self.on_change)
        if trainer.state.fn == "fit":
            # killed between its first checkpoint and the first last.ckpt, a run trains anew on the pool that it has
            keeps_last = any(getattr(callback, "save_last", None) for callback in trainer.checkpoint_callbacks)
            name = "last*.ckpt" if keeps_last else "*.ckpt"
            self._holds_a_fit = folder is not None and (
                folder == self._trained_in or has_checkpoint(trainer, folder, name)
            )
            return open_pool(trainer, folder, self.seeds, self.conditions(), self.on_change)
        return SamplePool(self.seeds, folder) if folder is not None and is_grown(folder) else None

    def teardown(self, stage: str) -> None:
        """Let others use the run folder, and remember how far `fit` trained the model, for a later validation."""
        self._lock.release()
        if stage == "fit":
            self._trained_outer_epochs, self._within = self._progress()
            self._remember_training()

    def on_exception(self, exception: BaseException) -> None:
        """Let others use the run folder."""
        self._lock.release()
        self._remember_training()

    def _remember_training(self) -> None:
        trainer: Any = self.trainer
        if trainer and trainer.state.fn == "fit" and trainer.global_step:
            self._trained_in = run_folder(trainer)

    @property
    def processes(self) -> Processes:
        """The processes that grow, train and measure together."""
        return Processes.of(self.trainer) if self.trainer else ALONE

    @property
    def measured_outer_epoch(self) -> int:
        """The outer epoch that the model was trained in last; 0 is the pretrained model."""
        trainer: Any = self.trainer
        if trainer and trainer.state.fn == "fit":
            return self.outer_epoch_of(trainer.current_epoch)
        return self.trained_outer_epochs + self.within_outer_epoch

    @property
    def exhausted_outer_epoch(self) -> int | None:
        """The outer epoch that the α rule ended in the last fit, which was not trained on."""
        return None if self._exhausted_epoch is None else self.outer_epoch_of(self._exhausted_epoch)

    def _checked_trainer(self) -> Any:
        trainer: Any = self.trainer  # Lightning sets many of its attributes without declaring them
        if trainer is None:
            raise RuntimeError("IsaraDataModule needs a Trainer: trainer.fit(module, datamodule=...)")
        check_reloading(trainer)
        check_epochs(trainer, self.outer_epochs, self.epochs_per_outer_epoch)
        check_processes(trainer, self.batch_size)
        return trainer

    def _refuse_second_fit(self) -> None:
        """Refuse to train on what an earlier fit made as if that were new: its pool belongs to other weights."""
        if self._holds_a_fit and not self._checkpointed:
            raise InputError(
                f"{self._known_pool().folder} holds a trained run already, and this fit goes on from no checkpoint of "
                "it. Give `fit` its ckpt_path, or the Trainer another default_root_dir"
            )

    def _known_pool(self) -> SamplePool:
        if self.pool is None:
            raise RuntimeError("the pool exists in trainer.fit only")
        return self.pool

    # -- state

    def state_dict(self) -> dict[str, Any]:
        """Give what a resume must find on disk, and how far training is."""
        known = self.pool.known() if self.pool else {}
        taught = [*self.lessons.files.known] if self.lessons else self._taught
        trained, within = self._progress()
        return {**known, "trained_outer_epochs": trained, "within_outer_epoch": within, "taught": taught}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what the checkpoint knew, to compare with the pool on disk."""
        self._checkpointed = dict(state_dict)
        self._trained_outer_epochs = self._checkpointed.pop("trained_outer_epochs", 0)
        self._within = self._checkpointed.pop("within_outer_epoch", False)
        self._taught = self._checkpointed.pop("taught", [])

    @property
    def trained_outer_epochs(self) -> int:
        """How many outer epochs the model is trained for: by the running fit, else by the last fit or checkpoint."""
        return self._progress()[0]

    @property
    def within_outer_epoch(self) -> bool:
        """Whether the model was trained in another outer epoch as well, but not to its end."""
        return self._progress()[1]

    def _progress(self) -> tuple[int, bool]:
        trainer: Any = self.trainer
        if not trainer or trainer.state.fn != "fit":
            return self._trained_outer_epochs, self._within
        epochs, within = trained_epochs(trainer)
        if self._exhausted_epoch is not None:
            epochs = min(epochs, self._exhausted_epoch)
        outer_epochs, more = divmod(epochs, self.epochs_per_outer_epoch)
        if outer_epochs < self._trained_outer_epochs:  # Lightning loads its own progress after the checkpoint's data
            return self._trained_outer_epochs, self._within
        return outer_epochs, within or more > 0
