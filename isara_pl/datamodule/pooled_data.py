"""The data module's part in a run: its pool, opened, locked and remembered by checkpoints; which weights stand when."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info

from isara_pl.datamodule.checks import (
    check_callbacks,
    check_epochs,
    check_namespace,
    check_processes,
    check_reloading,
)
from isara_pl.datamodule.growing import candidate_filters
from isara_pl.datamodule.teaching import Lessons
from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, is_grown, seeds_of
from isara_pl.growth.samples import Sample
from isara_pl.models.sources import content_of
from isara_pl.module import PRETRAINED, IsaraModule
from isara_pl.results.metrics import FILE, read_weights
from isara_pl.run.checkpoints import weights_hash
from isara_pl.run.conditions import CONTENT, OnChange, check_conditions, described, files_of, forget_conditions
from isara_pl.run.files import POOL, UNFINISHED
from isara_pl.run.folder import RunLock, make_run_folder, run_folder
from isara_pl.run.heartbeat import Heartbeat
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.plan import TRAINED, write_plan
from isara_pl.run.trainer import ALONE, Processes, callbacks_of, is_trial, trained_epochs

MODELS = ("model.name", "data.encoder")  # options that may name a place


@runtime_checkable
class EpochChoice(Protocol):
    """A callback that decides which epoch's weights an outer epoch ends with, and so what the next one grows by."""

    def keep_best(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module the weights of the best epoch."""


@runtime_checkable
class ConditionalFilter(Protocol):
    """A filter whose verdicts depend on more than its own options."""

    def conditions_of(self, trainer: Trainer) -> dict[str, Any]:
        """Give what else they depend on, by the names of the conditions; asked before the filter's `setup`."""


@runtime_checkable
class StoppingRule(Protocol):
    """A callback that may end a run before its last outer epoch."""

    def plan(self) -> dict[str, Any]:
        """Give the options that decide when, by their names; the pool does not depend on them."""


class PooledDataModule(LightningDataModule, ABC):
    """A data module whose samples are a pool in the run folder, and which knows how far a run is.

    `seeds` are what the pool begins with: the given ones, and from `setup` on those of the pool that goes on.
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
        self._heartbeat = Heartbeat()
        self._trained_outer_epochs = 0
        self._within = False
        self._exhausted_epoch: int | None = None
        self._trained_in: Path | None = None
        self._holds_a_fit = False  # the folder, of which this fit should go on from a checkpoint

    @property
    def trainer(self) -> Trainer | None:
        """The trainer that this is given to."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        check_namespace(trainer)  # another one asks the wrong questions before it calls `setup`
        self._trainer = trainer

    @abstractmethod
    def conditions(self) -> dict[str, Any]:
        """Give what the pool depends on here, by the names of the options."""

    @property
    @abstractmethod
    def seeds_hash(self) -> str:
        """A short hash of all seeds' questions and answers: which runs had the same ones."""

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
            self._heartbeat.start(self.processes)
            self._check_one_folder()
            # the first process opens the pool; every other one gets a copy that writes nothing
            self.seeds = self.processes.from_first(self._seeds_of_run)
            self.pool = self.processes.from_first(self._opened_pool)
            if self.pool is not None and not self.processes.is_first:
                self.pool.folder = None

    def _check_one_folder(self) -> None:
        """Refuse processes that do not see the first one's run folder: each reads checkpoints and figures there."""
        trainer: Any = self.trainer
        if self.processes.count == 1 or is_trial(trainer):
            return
        folder = Path(trainer.default_root_dir)
        marker = self.processes.from_first(lambda: _marker_in(folder))
        seen = self.processes.gathered(lambda: [(folder / marker).exists()])
        if self.processes.is_first:
            (folder / marker).unlink()
        if not all(seen):
            raise InputError(
                f"process {seen.index(False)} does not see what the first one writes into {folder}. Allowed: a run_dir "
                "on a file system that all nodes share, with the same path on each"
            )

    def _seeds_of_run(self) -> list[Sample]:
        """Take the run folder for this run alone; where a pool of other seeds may continue, give its own."""
        trainer: Any = self.trainer
        folder = run_folder(trainer)
        if folder is not None and trainer.state.fn != "predict":  # which writes nothing that another run reads
            self._lock.acquire(folder)
        if folder is None or self.on_change == "refuse" or not (is_grown(folder) or self._has_checkpoint(folder)):
            return self.seeds
        kept = seeds_of(folder)
        if kept != self.seeds:
            rank_zero_warn(f"{folder}: going on with the {len(kept)} seeds of the pool, not with those of data.seeds")
        return kept

    def _opened_pool(self) -> SamplePool | None:
        """Open the pool, or begin one; outside of `fit`, None where nothing has grown.

        Raises:
            InputError: If conditions changed, or the journal is damaged.
        """
        trainer: Any = self.trainer
        folder = run_folder(trainer)
        if trainer.state.fn != "fit":
            return SamplePool(self.seeds, folder) if folder is not None and is_grown(folder) else None
        # killed between its first checkpoint and the first last.ckpt, a run trains anew on the pool that it has
        keeps_last = any(getattr(callback, "save_last", None) for callback in trainer.checkpoint_callbacks)
        self._holds_a_fit = folder is not None and (
            folder == self._trained_in or self._has_checkpoint(folder, "last*.ckpt" if keeps_last else "*.ckpt")
        )
        begun_before = folder is not None and (folder / POOL).exists()
        if folder is not None:
            if not (is_grown(folder) or self._has_checkpoint(folder)):
                forget_conditions(folder)
            check_conditions(folder, self._conditions_of_run(), self.on_change)
            write_plan(folder, self._plan_of_run())
        return self._told(SamplePool(self.seeds, folder), begun_before)

    def _told(self, pool: SamplePool, begun_before: bool) -> SamplePool:
        """Say that a pool is gone on with: someone who runs a cell again may not expect it."""
        grown = [sample.outer_epoch for sample in pool.samples if sample.outer_epoch]
        if pool.folder is not None and is_grown(pool.folder):
            rank_zero_info(
                f"continuing the pool in {pool.folder}: {len(grown)} samples of outer epochs up to "
                f"{max(grown, default=0)} were accepted there, and are not generated again"
            )
        elif begun_before:
            rank_zero_info(f"beginning anew in {pool.folder}, where an earlier run has generated nothing")
        return pool

    def _plan_of_run(self) -> dict[str, Any]:
        """Give what ends this run, by the names of the options."""
        plan: dict[str, Any] = {"data.outer_epochs": self.outer_epochs}
        for callback in callbacks_of(self.trainer) if self.trainer else []:
            plan |= callback.plan() if isinstance(callback, StoppingRule) else {}
        return plan

    def _conditions_of_run(self) -> dict[str, Any]:
        """Give what the pool depends on: in the data, in trainer, filters and module, and in what they name."""
        trainer: Any = self.trainer
        module_conditions = getattr(trainer.lightning_module, "conditions", dict)
        filters = candidate_filters(trainer)
        every = {
            **self.conditions(),
            **module_conditions(),
            "trainer.precision": str(trainer.precision),
            "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
            "trainer.gradient_clip_val": trainer.gradient_clip_val,
            "best_epoch": any(isinstance(callback, EpochChoice) for callback in trainer.callbacks),
            "filters": described(filters),
            "files of filters": files_of(filters),
        }
        for one in filters:
            every |= one.conditions_of(trainer) if isinstance(one, ConditionalFilter) else {}
        contents = {CONTENT + name: content_of(every[name]) for name in MODELS if isinstance(every.get(name), str)}
        contents[CONTENT + "data.seeds"] = self.seeds_hash
        return {**every, **{name: content for name, content in contents.items() if content is not None}}

    def _has_checkpoint(self, folder: Path, name: str = "*.ckpt") -> bool:
        """Whether an earlier fit left a checkpoint in the run folder, or where this trainer keeps its own."""
        trainer: Any = self.trainer
        # one that checkpoints elsewhere was told where; a folder that Lightning chooses is in the run folder
        chosen = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
        places = [folder, *(Path(place) for place in chosen if place)]
        return any(next(place.rglob(name), None) for place in places)

    def teardown(self, stage: str) -> None:
        """Let others use the run folder, and remember how far `fit` trained the model, for a later validation."""
        self._lock.release()
        self._heartbeat.stop()
        if stage == "fit":
            self._trained_outer_epochs, self._within = self._progress()
            self._remember_training()
            folder = run_folder(self.trainer) if self.trainer else None
            if folder is not None:
                write_plan(folder, {**self._plan_of_run(), TRAINED: self._trained_outer_epochs})

    def on_exception(self, exception: BaseException) -> None:
        """Let others use the run folder."""
        self._lock.release()
        self._heartbeat.stop(failed=True)
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
        check_callbacks(trainer)
        check_reloading(trainer)
        check_epochs(trainer, self.outer_epochs, self.epochs_per_outer_epoch)
        check_processes(trainer, self.batch_size)
        return trainer

    def _refuse_other_pool(self, pool: SamplePool) -> None:
        """Refuse to train on a pool that belongs to other weights, or that lost what the checkpoint was trained on."""
        lost = pool.lacks(self._checkpointed) if self._checkpointed else None
        if lost is not None:
            raise InputError(
                f"{pool.folder}: {lost}, when the checkpoint was written. "
                "Restore the file from a copy, or start anew in another folder"
            )
        if self._holds_a_fit and not self._checkpointed:
            raise InputError(
                f"{pool.folder} holds a trained run already, and this fit goes on from no checkpoint of "
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


def _marker_in(folder: Path) -> str:
    make_run_folder(folder)
    marker = f".shared-{uuid4().hex}{UNFINISHED}"  # should this process be killed, the next run removes it
    (folder / marker).touch()
    return marker


def weights_of(module: LightningModule) -> str:
    """Name the weights of a module: those that training changes decide."""
    if isinstance(module, IsaraModule):
        return module.weights()
    return weights_hash({name: weight for name, weight in module.named_parameters() if weight.requires_grad})


def outer_epoch_of_weights(trainer: Trainer, module: LightningModule, data: PooledDataModule) -> int | None:
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
