"""Keys and values of the rows of a batch, in memory that is allocated once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer


@dataclass
class _Window:
    """The part of the memory that a forward pass reads and writes."""

    rows: slice
    start: int  # first column that it reads
    end: int  # first column that it writes; it reads up to what it has written
    # tokens of each row where whole prompts are computed, padded on the right; None otherwise. They then see
    # themselves only, and are written so that they end at `end`
    prompts: Sequence[int] | None = None
    # where one token is written in the place of `end`, of shape (1,), on the device: a CUDA graph reads it anew
    # whenever it is replayed. None otherwise.
    column: Tensor | None = None


class _RowsLayer(DynamicLayer):
    """Keys and values of one layer, each of shape (rows, heads, columns, width)."""

    def __init__(self, window: _Window, rows: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers' caches have few types
        self.window = window
        self.rows = rows
        self.columns = columns

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the memory, once the model shows how many heads there are and how wide.

        Zeros, since what stands in masked columns is multiplied by 0, and must not be NaN.
        """
        self.memory = [
            states.new_zeros(self.rows, states.shape[1], self.columns, states.shape[3])
            for states in (key_states, value_states)
        ]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write what the model computed, and give all that the window holds."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window, end = self.window, self.window.end + key_states.shape[-2]
        keys, values = (states[window.rows] for states in self.memory)
        if window.prompts is not None:
            for row, length in enumerate(window.prompts):
                keys[row, :, window.end - length : window.end] = key_states[row, :, :length]
                values[row, :, window.end - length : window.end] = value_states[row, :, :length]
            return key_states, value_states
        if window.column is not None:
            keys.index_copy_(2, window.column, key_states)
            values.index_copy_(2, window.column, value_states)
        else:
            keys[:, :, window.end : end] = key_states
            values[:, :, window.end : end] = value_states
        return keys[:, :, window.start : end], values[:, :, window.start : end]

    def get_seq_length(self) -> int:
        """Give how many columns the window reads before it writes."""
        return 0 if self.window.prompts is not None else self.window.end - self.window.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Give how many columns a mask must have, and that none are left out before them."""
        return self.get_seq_length() + query_length, 0


class RowsCache(Cache):
    """The cache of a batch whose rows all end at the same column.

    transformers' own cache copies all of itself for every new token; this one writes in place. `columns` is the most
    tokens of a row, prompt and new ones.
    """

    def __init__(self, layers: int, rows: int, columns: int) -> None:
        self.window = _Window(slice(0, rows), 0, 0)
        self._own_layers = [_RowsLayer(self.window, rows, columns) for _ in range(layers)]
        super().__init__(layers=[*self._own_layers])

    def look_at(
        self, rows: slice, start: int, end: int, prompts: Sequence[int] | None = None, column: Tensor | None = None
    ) -> None:
        """Set what the next forward pass reads and where it writes, as of `_Window`."""
        window = self.window
        window.rows, window.start, window.end, window.prompts, window.column = rows, start, end, prompts, column

    def copy(self, source: int, rows: Sequence[int], source_columns: slice, columns: slice) -> None:
        """Copy some columns of one row to others."""
        for memory, index in self._memory(rows):
            of_source = memory[source, :, source_columns]
            memory[:, :, columns].index_copy_(0, index, of_source.expand(len(rows), *of_source.shape))

    def move(self, sources: Sequence[int], rows: Sequence[int], columns: slice) -> None:
        """Copy some columns of several rows to as many others."""
        for memory, index in self._memory([*sources, *rows]):
            part = memory[:, :, columns]
            part.index_copy_(0, index[len(sources) :], part.index_select(0, index[: len(sources)]))

    def _memory(self, rows: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the keys and the values of every layer, and with them the rows as a tensor there."""
        index = torch.tensor(rows)
        for layer in self._own_layers:
            for memory in layer.memory:
                index = index.to(memory.device)
                yield memory, index


def layers_of(model: Any) -> int | None:
    """Give the number of layers whose keys and values `RowsCache` can hold; None where it cannot.

    A sliding window is no hindrance, since masks apply it; a recurrent state is.
    """
    layers = DynamicCache(config=model.config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return len(layers) if layers and plain and not getattr(model, "_is_stateful", False) else None
