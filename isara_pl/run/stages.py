"""Where time and tokens go: the stage that this process is in.

Code that works opens a stage around itself and counts what it does; progress bars and the ledger listen. Where nobody
listens, nothing happens. Stages nest, and each counts only what is done in itself: while an inner stage runs, the
clocks of the outer ones stand still.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from isara_pl.run.memory import PeakMemory


@dataclass(eq=False)
class Stage:
    """A piece of work that goes on, as this process sees it."""

    name: str  # what is done, e.g. `questions` or `training`
    outer_epoch: int  # which outer epoch it belongs to; 0 is the pretrained model
    total: int | None = None  # how many items it will go through; None where that is not known
    outer: "Stage | None" = None  # the stage around it
    done: int = 0  # items that it has gone through
    prompt_tokens: int = 0  # tokens of prompts that were completed, or of texts that were trained on or scored
    generated_tokens: int = 0
    flops: int = 0  # floating-point operations of the language model and the encoder, as of `isara_pl.models.flops`
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0  # time that this process spent computing in it, over all its threads
    peak_memory: int = 0  # most bytes that were in use: on the GPU where there is one, else of this process
    _since: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def _resume(self) -> None:
        if _listeners:  # else the peak is left to others who look at it
            _memory.reset()
        self._since = time.perf_counter(), time.process_time()

    def _pause(self) -> None:
        wall, cpu = self._since
        self.wall_seconds += time.perf_counter() - wall
        self.cpu_seconds += time.process_time() - cpu
        if _listeners:
            self.peak_memory = max(self.peak_memory, _memory.read())


class StageListener:
    """Hears of every stage of this process, in the hooks that it fills in."""

    def on_stage_start(self, stage: Stage) -> None:
        """Hear that a stage begins."""

    def on_stage_end(self, stage: Stage) -> None:
        """Hear that a stage is over, be it by an error."""


_memory = PeakMemory()
_open: list[Stage] = []  # the innermost one last
_listeners: list[StageListener] = []


@contextmanager
def stage(name: str, outer_epoch: int | None = None, total: int | None = None) -> Iterator[Stage]:
    """Be in a stage inside the block.

    `outer_epoch` None takes that of the stage around it, or 0; `total`, how many items it will go through, is None
    where that is not known.
    """
    outer = _open[-1] if _open else None
    if outer_epoch is None:
        outer_epoch = outer.outer_epoch if outer else 0
    entered = Stage(name, outer_epoch, total, outer)
    if outer:
        outer._pause()
    _open.append(entered)
    entered._resume()
    try:
        for listener in [*_listeners]:
            listener.on_stage_start(entered)
        yield entered
    finally:
        entered._pause()
        _open.remove(entered)
        for listener in [*_listeners]:
            listener.on_stage_end(entered)
        if outer:
            outer._resume()


def count(done: int = 0, prompt_tokens: int = 0, generated_tokens: int = 0, flops: int = 0) -> None:
    """Count what was done in the innermost stage; outside of any stage nothing is counted.

    `prompt_tokens` are those that were completed, trained on or scored.
    """
    if not _open:
        return
    current = _open[-1]
    current.done += done
    current.prompt_tokens += prompt_tokens
    current.generated_tokens += generated_tokens
    current.flops += flops


@contextmanager
def set_apart() -> Iterator[Stage]:
    """Count what is done inside the block in no stage; nobody hears of it, and no clock stands still.

    Gives where it is counted instead.
    """
    apart = Stage("apart", 0)
    _open.append(apart)
    try:
        yield apart
    finally:
        _open.remove(apart)


def listen(listener: StageListener) -> None:
    """Let a listener hear of all stages from now on; once, however often this is called."""
    if listener not in _listeners:
        _listeners.append(listener)


def unlisten(listener: StageListener) -> None:
    """Let a listener hear of nothing any more."""
    if listener in _listeners:
        _listeners.remove(listener)
