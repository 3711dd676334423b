"""The question-blind control: how given answers score where their question is not asked.

How true answers sound, whatever was asked, is enough for much of a figure over given answers. So the same answers are
scored once more after another item's question. What the figure is beyond that, its informed part, is what the model
takes from the question; the rest is style.
"""

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Blind = Literal["none", "another", "both"]
# ends of the names of figures: after another item's question, after an empty one, and what is left beyond the first
BLIND, EMPTY, INFORMED = "blind", "empty", "informed"
CONTROLS: Mapping[Blind, tuple[str, ...]] = {"none": (), "another": (BLIND,), "both": (BLIND, EMPTY)}


def others_of(questions: Sequence[str], seed: int) -> list[int]:
    """Give for each item the place of an item with another question; nothing where all have the same one.

    The different questions stand in a ring whose order the seed draws, and each is given the next one: where no
    question is there twice, that is a permutation without a fixed point. Questions that differ in case and spaces
    alone are the same.
    """
    said = [" ".join(question.split()).casefold() for question in questions]
    places = {question: place for place, question in reversed([*enumerate(said)])}
    ring = sorted(places, key=lambda question: places[question])
    if len(ring) < 2:
        return []
    random.Random(seed).shuffle(ring)
    following = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    return [places[following[question]] for question in said]


def drawn(questions: Sequence[str], most: int | None) -> list[int]:
    """Give the places of so many items, or of all: those with the least hashes of their questions.

    So runs with other seeds measure the same ones, and can be compared item by item.
    """
    # a question from a file may hold half a surrogate pair, which UTF-8 has no bytes for
    hashes = [
        hashlib.sha256(f"blind {question}".encode("utf-8", "backslashreplace")).digest() for question in questions
    ]
    return sorted(range(len(questions)), key=lambda place: (hashes[place], place))[:most]


def with_controls(
    figures: Mapping[str, float | None], controls: Mapping[str, Mapping[str, float | None]]
) -> dict[str, float | None]:
    """Give an item's figures, those of each control, and what is left of each beyond the blind one.

    Args:
        figures: By their names, such as `mc2`; None or NaN is not finite.
        controls: The same figures without the question, by the control; may be empty.

    Returns:
        `mc2`, `mc2_blind` and so on, and `mc2_informed`, which is `mc2` minus `mc2_blind`: better in the direction in
        which `mc2` is. None where one of them is not finite.
    """
    beside = {f"{name}_{control}": one[name] for control, one in controls.items() for name in figures}
    blind = controls.get(BLIND, {})
    informed = {f"{name}_{INFORMED}": _minus(figures[name], blind[name]) for name in figures if name in blind}
    return {**figures, **beside, **informed}


def control_means(
    lines: Sequence[Mapping[str, Any]], figure: str, weight: str | None = None, worst: float | None = None
) -> dict[str, Tensor]:
    """Give the means of a figure's controls and of its informed part, over the items that have them.

    Args:
        lines: What `with_controls` gave for each item, and its weight.
        figure: Its name.
        weight: The field that weights an item; None weights all alike.
        worst: What an informed part that is not finite counts as; None leaves it out, as of the controls.

    Returns:
        By `blind`, `empty` and `informed`; nothing of what no item has.
    """
    means = {}
    for ending in (BLIND, EMPTY, INFORMED):
        having = [line for line in lines if f"{figure}_{ending}" in line]
        values = [_finite(line[f"{figure}_{ending}"]) for line in having]
        if ending == INFORMED:
            values = [worst if value is None else value for value in values]
        weights = [1.0 if weight is None else line[weight] for line in having]
        known = [(value, times) for value, times in zip(values, weights, strict=True) if value is not None]
        if having:
            total = sum(times for _, times in known)
            mean = math.fsum(value * times for value, times in known) / total if known else math.nan
            means[ending] = torch.tensor(mean, dtype=torch.float32)  # not the default type, which `bf16-true` changes
    return means


def _minus(figure: float | None, blind: float | None) -> float | None:
    here, there = _finite(figure), _finite(blind)
    return None if here is None or there is None else here - there


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
