"""The rows of a batch: which prompts begin alike, and the keys and values that are then computed once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

# sharing less than this costs more in small forward passes than it saves
_LEAST_SHARED = 32  # tokens of a prompt
LEAST_SAVED = 256  # tokens of all prompts of a round


@dataclass(frozen=True)
class Row:
    """A prompt, and from which earlier one it takes its first tokens."""

    prompt: int  # its place
    parent: int | None = None  # place of the prompt whose first tokens it shares; None computes it whole
    shared: int = 0  # how many tokens; all of them where both prompts are the same
    round: int = 0  # 0 is computed first; a row's parent is of an earlier round


def sharing_order(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Order prompts so that a cut anywhere leaves most of what they share together.

    Gives their places: by length, or by their tokens where that lets clearly more be shared.
    """
    by_length = sorted(range(len(prompts)), key=lambda place: (len(prompts[place]), prompts[place], place))
    by_tokens = sorted(range(len(prompts)), key=lambda place: (prompts[place], place))
    gain = _shared_by_neighbours(prompts, by_tokens) - _shared_by_neighbours(prompts, by_length)
    return by_tokens if gain > 0.1 * sum(map(len, prompts)) else by_length


def rounds(prompts: Sequence[Sequence[int]]) -> list[list[Row]]:
    """Decide what each prompt computes and what it takes from another one.

    Gives rows in the order in which they can be computed, round by round; in a round by ascending number of tokens to
    compute. Every prompt stands in exactly one row.
    """
    order = sorted(range(len(prompts)), key=lambda place: (prompts[place], place))
    shared = [_common(prompts[a], prompts[b]) for a, b in pairwise(order)]
    rows = {prompt: _row(order, shared, place) for place, prompt in enumerate(order)}
    while True:
        _set_rounds(rows, order)
        saved: Counter[int] = Counter()
        for row in rows.values():
            saved[row.round] += row.shared
        poor = [number for number in sorted(saved) if number and saved[number] < LEAST_SAVED]
        if not poor:
            break
        for prompt, row in rows.items():
            if row.round == poor[0]:
                rows[prompt] = Row(prompt)
    found: dict[int, list[Row]] = {}
    for row in sorted(rows.values(), key=lambda row: (len(prompts[row.prompt]) - row.shared, row.prompt)):
        found.setdefault(row.round, []).append(row)
    return [found[number] for number in sorted(found)]


def _row(order: list[int], shared: list[int], place: int) -> Row:
    """Find the first of the prompts before this one, in the order of tokens, that shares the most with it."""
    most = shared[place - 1] if place else 0
    if most < _LEAST_SHARED:
        return Row(order[place])
    first = place - 1
    while first > 0 and shared[first - 1] >= most:
        first -= 1
    return Row(order[place], order[first], most)


def _set_rounds(rows: dict[int, Row], order: list[int]) -> None:
    for prompt in order:  # parents come before their children
        parent = rows[prompt].parent
        rows[prompt] = replace(rows[prompt], round=0 if parent is None else rows[parent].round + 1)


def _shared_by_neighbours(prompts: Sequence[Sequence[int]], order: list[int]) -> int:
    shared = (_common(prompts[a], prompts[b]) for a, b in pairwise(order))
    return sum(tokens for tokens in shared if tokens >= _LEAST_SHARED)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Give how many tokens two prompts begin with in common."""
    length = min(len(first), len(second))
    return next((place for place in range(length) if first[place] != second[place]), length)


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
