"""The question-blind control: how given answers score where their question is not asked.

How true answers sound, whatever was asked, is enough for much of a figure over given answers. So the same answers are
scored once more after another item's question. What the figure is beyond that, its informed part, is what the model
takes from the question; the rest is style.
"""

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from typing import Literal

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


def _minus(figure: float | None, blind: float | None) -> float | None:
    here, there = finite_or_none(figure), finite_or_none(blind)
    return None if here is None or there is None else here - there


def finite_or_none(value: float | None) -> float | None:
    """Give a number that is finite, else None."""
    return value if value is not None and math.isfinite(value) else None
