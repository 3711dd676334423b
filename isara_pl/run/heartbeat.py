"""No process of a run outlives the others by much: a lonely one would generate on, or wait for half an hour."""

import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from isara_pl.run.trainer import Processes

STARTER = "ISARA_PL_STARTER"
EVERY = 5.0  # seconds between two beats
PATIENCE = 60.0  # seconds without a beat, after which a process counts as gone
_GRACE = 5.0  # seconds in which a process that ends by itself says why
_ENDED, _FAILED = "ended", "failed"


class Heartbeat:
    """Tells the other processes of a run that this one is alive, and ends it when one of them is not.

    At a collective operation a dead process is noticed in seconds; while the others generate, which takes long and
    communicates nothing, only by this. The beats go through the store at which the processes met, from a thread. A
    single process has none.
    """

    _runs = 0  # of this process: all processes count alike

    def __init__(self) -> None:
        self._over = threading.Event()
        self._store: Store | None = None
        self._thread: threading.Thread | None = None
        self._key = ""

    def start(self, processes: Processes) -> None:
        """Begin, as soon as the processes have met; all have to call it."""
        self.stop()
        if processes.count == 1:
            return
        Heartbeat._runs += 1
        self._over = threading.Event()
        met: Any = _get_default_store()  # torch has no public way to it, and gives it incomplete types
        self._store = PrefixStore(
            f"isara_pl-heartbeat-{Heartbeat._runs}", met.clone()
        )  # a connection is for one thread
        self._key = str(processes.rank)
        others = [str(rank) for rank in range(processes.count) if rank != processes.rank]
        arguments = (self._store, self._over, self._key, others)
        self._thread = threading.Thread(target=_beat, args=arguments, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self, failed: bool = False) -> None:
        """End, and tell the others whether all went well; those of a run that failed end as well."""
        self._over.set()
        if self._store is not None and self._thread is not None:
            self._thread.join(_GRACE)
            with suppress(RuntimeError):  # where the process that keeps the store is gone, the others know
                self._store.set(self._key, _FAILED if failed else _ENDED)
        self._store = None


def _beat(store: Store, over: threading.Event, key: str, others: list[str]) -> None:
    seen = {other: ("", time.monotonic()) for other in others}  # their newest beats, and since when
    count = 0
    while not over.wait(EVERY):
        count += 1
        try:
            store.set(key, str(count))
            for other in others:
                beat = store.get(other).decode() if store.check([other]) else ""
                if beat != seen[other][0]:
                    seen[other] = (beat, time.monotonic())
        except RuntimeError:
            _end(key, "the process at which all met is gone", over)
            return
        for other, (beat, since) in seen.items():
            if beat == _FAILED:
                _end(key, f"process {other} failed", over)
            elif beat != _ENDED and time.monotonic() - since > PATIENCE:
                _end(key, f"process {other} has given no sign for {PATIENCE:.0f} seconds", over)


def _end(key: str, why: str, over: threading.Event) -> None:
    if over.wait(_GRACE):  # this process ends by itself
        return
    print(f"process {key}: ends, since {why}", file=sys.stderr, flush=True)
    os._exit(1)


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
        time.sleep(_GRACE)  # where all ended well, this process has ended by then
        print(f"process {rank}: ends, since the process that started it is gone", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, name="end-together", daemon=True).start()
