"""The processes that do one run together: what each of them does, and what they tell each other."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed

from isara_pl.errors import InputError

T = TypeVar("T")
_PATIENCE = 5.0  # seconds
STARTER = "ISARA_PL_STARTER"


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them. A single one never communicates.

    Attributes:
        rank: Which one this is, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def of(cls, trainer: Any) -> "Processes":
        """Give the processes of a trainer."""
        return cls(trainer.global_rank, trainer.world_size)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that filters, and writes files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Give the part of the items that is this process's: neighbours, and nothing where there are too few.

        All processes must give the same items.
        """
        size, larger = divmod(len(items), self.count)  # so many processes have one item more
        start = self.rank * size + min(self.rank, larger)
        return items[start : start + size + (self.rank < larger)]

    def gathered(self, part: Callable[[], Sequence[T]]) -> list[T]:
        """Let every process make its part, and give all parts one after the other, the first process's first.

        An error in one is raised in every process, so that none waits in vain.
        """
        if self.count == 1:
            return [*part()]
        made, error = _tried(part)
        told: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(told, (made, self._quoted(error)))
        if error is not None:
            raise error
        for _, of_another in told:
            if of_another is not None:
                raise of_another
        return [item for items, _ in told for item in items]

    def from_first(self, make: Callable[[], T]) -> T:
        """Let the first process make something, and give it to all. An error in it is raised in every process."""
        if self.count == 1:
            return make()
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


def end_together(rank: int) -> None:
    """Let a process that is not the first end some seconds after the one that started it.

    Lightning's first process ends when another one has died, but not the other way round: those would
    generate on, or wait for the first one for half an hour.

    Args:
        rank: Which process this is. The first one tells its number to those that it starts.
    """
    if os.name != "posix":  # elsewhere a process does not learn that the one that started it is gone
        return
    if rank == 0:
        os.environ[STARTER] = str(os.getpid())
        return
    starter = int(os.environ.get(STARTER, os.getppid()))  # else it is a launcher, such as torchrun

    def watch() -> None:
        while os.getppid() == starter:
            time.sleep(1)
        time.sleep(_PATIENCE)  # where all ended well, this process has ended by then
        print(f"process {rank}: ends, since the process that started it is gone", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, name="end-together", daemon=True).start()


def _tried(make: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return make(), None
    except Exception as error:
        return None, error
