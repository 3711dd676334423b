"""The run folder at the beginning of a fit: is it ours alone, unharmed, and grown under the same conditions?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_warn

from isara_pl.datamodule.growing import candidate_filters
from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, is_grown, seeds_of
from isara_pl.growth.samples import Sample
from isara_pl.models.sources import content_of
from isara_pl.run.conditions import CONTENT, OnChange, check_conditions, described, files_of, forget_conditions

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


def open_pool(
    trainer: Any, folder: Path | None, seeds: Sequence[Sample], conditions: Mapping[str, Any], on_change: OnChange
) -> SamplePool:
    """Open the pool of a run folder that is locked, or begin one there.

    Args:
        trainer: The trainer, in `fit`.
        folder: The run folder; None keeps the pool in memory.
        seeds: The given pairs.
        conditions: What the pool depends on in the data; what it depends on in trainer, filters and module is added.
        on_change: Whether a pool that was grown under other conditions is refused or continued.

    Raises:
        InputError: If conditions changed, or the journal is damaged.
    """
    if folder is None:
        return SamplePool(seeds)
    if not (is_grown(folder) or has_checkpoint(trainer, folder)):
        forget_conditions(folder)
    module_conditions = getattr(trainer.lightning_module, "conditions", dict)
    filters = candidate_filters(trainer)
    every = {
        **conditions,
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
    known = {name: content for name, content in contents.items() if content is not None}
    check_conditions(folder, {**every, **known}, on_change)
    return SamplePool(seeds, folder)


def seeds_to_use(trainer: Any, folder: Path | None, seeds: list[Sample], on_change: OnChange) -> list[Sample]:
    """Give the seeds: where a pool of others may continue, those that it was grown from.

    Args:
        trainer: The trainer.
        folder: The run folder; None where there is none.
        seeds: The given pairs.
        on_change: Whether a pool that was grown under other conditions is continued.
    """
    if folder is None or on_change == "refuse" or not (is_grown(folder) or has_checkpoint(trainer, folder)):
        return seeds
    kept = seeds_of(folder)
    if kept != seeds:
        rank_zero_warn(f"{folder}: going on with the {len(kept)} seeds of the pool, not with those of data.seeds")
    return kept


def has_checkpoint(trainer: Any, folder: Path, name: str = "*.ckpt") -> bool:
    """Whether an earlier fit left a checkpoint, in the run folder or where this trainer keeps its own.

    Args:
        trainer: The trainer.
        folder: The run folder.
        name: Pattern of its file.
    """
    # one that checkpoints elsewhere was told where; a folder that Lightning chooses is in the run folder
    chosen = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    places = [folder, *(Path(place) for place in chosen if place)]
    return any(next(place.rglob(name), None) for place in places)


def refuse_lost(pool: SamplePool, known: Mapping[str, Any]) -> None:
    """Refuse to continue from a checkpoint that was trained on what the pool does not hold any more.

    Args:
        pool: The pool.
        known: What the checkpoint knew of it, by `SamplePool.known`.

    Raises:
        InputError: If anything is missing.
    """
    lost = pool.lacks(known)
    if lost is not None:
        raise InputError(
            f"{pool.folder}: {lost}, when the checkpoint was written. "
            "Restore the file from a copy, or start anew in another folder"
        )
