"""Keys and values of the rows of a batch, in memory that is allocated once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer


@dataclass
class Window:
    """The part of the memory that a forward pass reads and writes.

    Attributes:
        rows: Its rows.
        start: First column that it reads.
        end: First column that it writes; it reads up to what it has written.
        prompts: Tokens of each row where whole prompts are computed, padded on the right; None otherwise.
            They then see themselves only, and are written so that they end at `end`.
    """

    rows: slice
    start: int
    end: int
    prompts: Sequence[int] | None = None


class RowsLayer(DynamicLayer):
    """Keys and values of one layer, each of shape (rows, heads, columns, width)."""

    def __init__(self, window: Window, rows: int, columns: int) -> None:
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

    transformers' own cache copies all of itself for every new token; this one writes in place.

    Args:
        layers: Layers of the model.
        rows: Rows of the batch.
        columns: Most tokens of a row, prompt and new ones.
    """

    def __init__(self, layers: int, rows: int, columns: int) -> None:
        self.window = Window(slice(0, rows), 0, 0)
        self._own_layers = [RowsLayer(self.window, rows, columns) for _ in range(layers)]
        super().__init__(layers=[*self._own_layers])

    def look_at(self, rows: slice, start: int, end: int, prompts: Sequence[int] | None = None) -> None:
        """Set what the next forward pass reads and where it writes, as of `Window`."""
        self.window.rows, self.window.start, self.window.end, self.window.prompts = rows, start, end, prompts

    def copy(self, source: int, rows: Sequence[int], source_columns: slice, columns: slice) -> None:
        """Copy some columns of one row to others."""
        for layer in self._own_layers:
            for states in layer.memory:
                for row in rows:
                    states[row, :, columns] = states[source, :, source_columns]


def layers_of(model: Any) -> int | None:
    """Give the number of layers whose keys and values `RowsCache` can hold; None where it cannot.

    A sliding window is no hindrance, since masks apply it; a recurrent state is.

    Args:
        model: A causal LM of transformers.
    """
    layers = DynamicCache(config=model.config).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return len(layers) if layers and plain and not getattr(model, "_is_stateful", False) else None
