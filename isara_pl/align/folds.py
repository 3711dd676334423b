"""Folds of the given pairs: each is measured by models that never saw it."""

import random
from collections.abc import Sequence

from isara_pl.errors import InputError
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import RougeLIndex, wording
from isara_pl.run.randomness import derive_seed

FEWEST_PAIRS = 8
FEWEST_IN_A_FOLD = 4
ALIKE = 0.7  # ROUGE-L above which two questions are near-duplicates, as for NearDuplicate (arXiv 2401.06785)


def folds_of(seeds: Sequence[Sample], count: int, seed: int) -> list[list[Sample]]:
    """Split pairs into folds of about equal size; questions that are near-duplicates stay in one fold.

    Args:
        seeds: The pairs.
        count: How many folds are wanted, at least 2; there are fewer where a fold would have fewer than 4 questions.
        seed: Decides which group of near-duplicates goes into which fold.

    Returns:
        The folds, each in the order of the pairs.

    Raises:
        InputError: If there are fewer than 8 pairs, or so many near-duplicates that no two folds can be made.
    """
    if len(seeds) < FEWEST_PAIRS:
        raise InputError(
            f"align: {len(seeds)} pairs are too few to hold some of them back. Give at least {FEWEST_PAIRS}, or train "
            "on all with `isara-pl fit` and judge the answers yourself"
        )
    groups = _near_duplicates(seeds)
    random.Random(derive_seed(seed, "folds")).shuffle(groups)
    groups.sort(key=len, reverse=True)  # the large ones first: the small ones even the folds out
    places: list[list[int]] = [[] for _ in range(min(count, max(2, len(seeds) // FEWEST_IN_A_FOLD)))]
    for group in groups:
        min(places, key=len).extend(group)
    if min(map(len, places)) == 0 or max(map(len, places)) > len(seeds) - FEWEST_IN_A_FOLD:
        raise InputError(
            f"align: {max(map(len, groups))} of {len(seeds)} questions are near-duplicates of one another (ROUGE-L "
            f"above {ALIKE}), so a fold without them cannot be made. Give pairs whose questions differ"
        )
    return [[seeds[place] for place in sorted(fold)] for fold in places]


def _near_duplicates(seeds: Sequence[Sample]) -> list[list[int]]:
    """Give groups of places whose questions are alike, directly or through others."""
    index = RougeLIndex()
    index.add([sample.question for sample in seeds])
    wordings = [wording(sample.question) for sample in seeds]
    group_of = list(range(len(seeds)))  # each place's group, named by its first place
    for place, sample in enumerate(seeds):
        alike = index.scores(sample.question)
        for other in range(place):
            if alike[other] > ALIKE or wordings[other] == wordings[place]:
                joined, into = group_of[place], group_of[other]
                group_of = [into if group == joined else group for group in group_of]
    groups: dict[int, list[int]] = {}
    for place, group in enumerate(group_of):
        groups.setdefault(group, []).append(place)
    return [*groups.values()]
