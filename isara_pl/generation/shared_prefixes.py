"""Which prompts begin alike, and so need what they share computed only once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

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
