"""Appending tokens by CUDA graphs: a step of hundreds of kernels, launched as one."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from isara_pl.errors import first_line
from isara_pl.models.adapter import is_sharded
from isara_pl.models.precision import allowed_difference
from isara_pl.run.memory import is_out_of_memory
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.stages import count, set_apart


class _Steps(Protocol):
    """What is appended to, as `isara_pl.generation.writing.Rows`."""

    @property
    def count(self) -> int:
        """How many rows there are."""

    @property
    def columns(self) -> int:
        """How many columns there are: tokens of a row at most."""

    def append(self, steps: int) -> Tensor:
        """Append a token to each row and give the logits that the next one is drawn from."""

    def append_fixed(self) -> Tensor:
        """Do the same with nothing but work on the device, whose shapes and places are the same at every step."""

    def take_back(self) -> None:
        """Undo the last `append`."""


class StepGraphs:
    """Appends by CUDA graphs for one model, as long as that gives what appending without them gives."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._refused = False
        self._checked = 0  # columns up to which both ways gave the same: some layers attend to the nearest ones only

    def suit(self) -> bool:
        """Whether graphs can be used now.

        They hold places in memory, so what autocast keeps for later and what quantised layers allocate by
        themselves has no place in them; nor do layers that attend to a window that moves, or whose weights are
        gathered from several processes. On another GPU than the current one a capture would hold nothing.
        """
        model = self._model
        return (
            model.device.type == "cuda"
            and model.device.index == torch.cuda.current_device()
            and not self._refused
            and not is_sharded(model)
            and not torch.is_autocast_enabled(model.device.type)
            and not torch.are_deterministic_algorithms_enabled()
            and all(parameter.is_floating_point() for parameter in model.parameters())
            and all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
        )

    def appending(self, rows: _Steps) -> Callable[[int], object]:
        """Give what appends a token to each of the rows, in the place of their own `append`.

        They are those of one batch; some may leave in between.
        """
        replay: Callable[[], object] | None = None
        prepared = 0  # number of rows for which the next step can be captured

        def append(steps: int) -> None:
            nonlocal replay, prepared
            if self._refused:
                rows.append(steps)
            elif prepared != rows.count:
                replay, prepared = None, rows.count
                if rows.columns <= self._checked:
                    rows.append_fixed()  # loads the kernels of these shapes: nothing may be loaded in a capture
                else:
                    self._check(rows, steps)
            else:
                if replay is None:
                    replay = self._captured(rows)[0]
                replay()

        return append

    def _check(self, rows: _Steps, steps: int) -> None:
        """Append a token both ways; what differs, or cannot be captured, is not used again."""
        expected = rows.append(steps)
        rows.take_back()
        try:
            rows.append_fixed()
            rows.take_back()
            replay, logits = self._captured(rows)
            replay()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._refuse(f"it cannot be captured ({first_line(error)})")
            rows.append(steps)
            return
        self._checked = rows.columns
        if not expected.isfinite().all():
            return  # nothing can be told apart; drawing says what is wrong
        difference = float((logits - expected).abs().mean(dim=-1).max())  # of the row that errs most
        allowed = allowed_difference(self._model, expected)
        if not difference <= allowed:  # nor where it is NaN
            self._refuse(f"its logits differ from those without by {difference:.2g} in the mean; allowed {allowed:.2g}")
            rows.take_back()
            rows.append(steps)

    def _captured(self, rows: _Steps) -> tuple[Callable[[], object], Tensor]:
        """Capture a step: give what replays it, and the logits that every replay writes anew."""
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # torch stays on the capture's where that fails
            torch.cuda.graph(graph, capture_error_mode="thread_local"),  # other threads may do as they like
            _no_waiting(),
            set_apart() as step,  # nothing is computed yet; hooks that count do not run in a replay
        ):
            logits = rows.append_fixed()

        def replay() -> None:
            graph.replay()
            count(flops=step.flops)

        return replay, logits

    def _refuse(self, why: str) -> None:
        self._refused = True
        rank_zero_warn(
            f"{type(self._model).__name__}: no CUDA graph of a decoding step, since {why}. Generation goes on without, "
            "which is slower"
        )


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise inside the block before anything waits for the device.

    CUDA would raise as well, but spoil the capture by it, and torch 2.11 does not recover from a spoiled one: later
    random numbers and lacks of memory would end the process.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it a prototype, since it does not know all that waits
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
