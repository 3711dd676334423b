"""The trainer of a run: how far it is, and the processes that do the run together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from isara_pl.errors import InputError

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer  # takes seconds to import


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Give the trainer's callbacks, in their order."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it without declaring it
    return callbacks


def is_trial(trainer: Trainer) -> bool:
    """Whether this is Lightning's `fast_dev_run`, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # as above


def finished_outer_epoch(trainer: Trainer, epochs_per_outer_epoch: int) -> bool:
    """Whether the epoch that is ending is the last of its outer epoch, had any training step, and was not cut short.

    An outer epoch that the α rule ended has none, although Lightning calls its hooks. For hooks at the end of a
    training epoch.
    """
    last = (trainer.current_epoch + 1) % epochs_per_outer_epoch == 0
    return last and trainer.fit_loop.epoch_loop.batch_progress.current.completed > 0 and not is_cut(trainer)


def is_cut(trainer: Trainer) -> bool:
    """Whether the newest epoch has batches left: `max_steps`, `max_time` or a callback ended the fit within it.

    Lightning counts such an epoch as one that is over. For hooks at the end of a training epoch, and later.
    """
    batches = trainer.fit_loop.epoch_loop.batch_progress
    return 0 < batches.current.ready < trainer.num_training_batches and not batches.is_last_batch


def trained_epochs(trainer: Trainer) -> tuple[int, bool]:
    """Give how many epochs the module has been trained for to their end, and whether it stands within another one."""
    epochs: Any = trainer.fit_loop.epoch_progress.current  # Lightning types them as counts of less
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    if epochs.started == epochs.processed:  # between two epochs
        return (epochs.processed - 1, True) if is_cut(trainer) else (epochs.processed, False)
    if batches.current.processed == batches.current.ready > 0 and not is_cut(trainer):
        return epochs.processed + 1, False  # after the last batch, before the end of the epoch
    return epochs.processed, batches.current.processed > 0


def measures_in_full(trainer: Any) -> bool:
    """Whether it validates, or tests, on every batch."""
    limit = trainer.limit_test_batches if trainer.state.fn == "test" else trainer.limit_val_batches
    return isinstance(limit, float) and limit == 1.0  # a whole number counts batches


T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them. A single one never communicates.

    Attributes:
        rank: Which one this is, from 0.
        count: How many there are.
        in_step: Whether all do the same work: a forward pass of a sharded model is one of all processes.
    """

    rank: int = 0
    count: int = 1
    in_step: bool = False

    @classmethod
    def of(cls, trainer: Any) -> Processes:
        """Give the processes of a trainer."""
        return cls(trainer.global_rank, trainer.world_size)

    @classmethod
    def computing(cls, trainer: Any) -> Processes:
        """Give the processes of a trainer for work that is forward passes: in step, where its model is sharded."""
        return replace(cls.of(trainer), in_step=getattr(trainer.strategy, "shards_model", False))

    @property
    def is_first(self) -> bool:
        """Whether this is the one that filters, and writes files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Give the part of the items that is this process's: neighbours, and nothing where there are too few.

        All processes must give the same items. In step, each has all of them.
        """
        if self.in_step:
            return items
        size, larger = divmod(len(items), self.count)  # so many processes have one item more
        start = self.rank * size + min(self.rank, larger)
        return items[start : start + size + (self.rank < larger)]

    def gathered(self, part: Callable[[], Sequence[T]]) -> list[T]:
        """Let every process make its part, and give all parts one after the other, the first process's first.

        An error in one is raised in every process, so that none waits in vain. In step, all make the same: its own.
        """
        if self.count == 1:
            return [*part()]
        made, error = _tried(part)
        import torch.distributed  # only here: it takes seconds

        told: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(told, (None if self.in_step else made, self._quoted(error)))
        if error is not None:
            raise error
        for _, of_another in told:
            if of_another is not None:
                raise of_another
        return [*made] if self.in_step and made is not None else [item for items, _ in told for item in items]

    def from_first(self, make: Callable[[], T]) -> T:
        """Let the first process make something, and give it to all. An error in it is raised in every process."""
        if self.count == 1:
            return make()
        import torch.distributed  # as above

        made, error = _tried(make) if self.is_first else (None, None)
        told: list[Any] = [(made, self._quoted(error))]
        torch.distributed.broadcast_object_list(told, src=0)
        if error is not None:
            raise error
        received, of_first = told[0]
        if of_first is not None:
            raise of_first
        result: T = received
        return result

    def _quoted(self, error: Exception | None) -> Exception | None:
        """Give an error as other processes raise it; not every error of every library can be sent."""
        if error is None:
            return None
        if isinstance(error, InputError):
            return InputError(str(error))
        return RuntimeError(f"process {self.rank} failed with {type(error).__name__}: {error}")


ALONE = Processes()


def _tried(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return make(), None
    except Exception as error:
        return None, error
