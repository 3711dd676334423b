"""The validation share: seeds that are held out to validate on, never trained on nor shown as demonstration."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from isara_pl.errors import InputError
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import wording
from isara_pl.run.randomness import derive_seed
from isara_pl.training.pairs import Batch

# what is measured on pairs: on those of data.held_out, and on the validation share
Figure = Literal["answer_nll", "validation_nll"]


class MeasuredBatch(Batch, total=False):
    """Pairs that are measured on. `figure` says under which name; without it they are held-out ones."""

    figure: Figure


def training_part(seeds: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Give the seeds without a validation share, which is drawn at random.

    Seeds that ask the same stay on one side.

    Args:
        seeds: The given seeds.
        share: The share, at least 0 and below 1; above 0 it is one seed at least.
        seed: The run's seed, which alone decides: a larger share holds every seed of a smaller one.

    Returns:
        The others in the given order.

    Raises:
        InputError: If the share is out of range, or leaves nothing to train on.
    """
    if not 0 <= share < 1:
        raise InputError(f"data.validation_share is {share}; allowed: at least 0 and below 1")
    if share == 0:
        return list(seeds)
    same: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, one in enumerate(seeds):
        same[wording(one.question)].append(place)
    size = max(1, round(share * len(seeds)))
    drawn: set[int] = set()
    for question in random.Random(derive_seed(seed, "validation")).sample(list(same), len(same)):
        if len(drawn) < size:
            drawn.update(same[question])
    if len(drawn) == len(seeds):
        raise InputError(
            f"data.validation_share is {share}, but data.seeds has {len(seeds)} seeds ({len(same)} different "
            "questions): at least one must be left to train on. Use a smaller share, 0, or more seeds"
        )
    return [one for place, one in enumerate(seeds) if place not in drawn]


def left_out(seeds: Sequence[Sample], used: Sequence[Sample]) -> list[Sample]:
    """Give the validation share: the seeds whose question no seed that is trained on asks.

    Args:
        seeds: The given seeds.
        used: Those that are trained on; where a pool goes on, its own.

    Raises:
        InputError: If there are none.
    """
    asked = {wording(one.question) for one in used}
    others = [one for one in seeds if wording(one.question) not in asked]
    if not others:
        raise InputError(
            f"data.validation_share: the pool goes on with its own seeds, and holds all {len(seeds)} of data.seeds: "
            "none is left to validate on. Use 0, or start anew in another folder"
        )
    return others


def in_file_order(seeds: Sequence[Sample]) -> list[Sample]:
    """Give seeds in the order of their file, which their ids count.

    Args:
        seeds: The seeds.
    """
    return sorted(seeds, key=lambda one: (len(one.id), one.id))
