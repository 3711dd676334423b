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


def folds_of(seeds: Sequence[Sample], count: int, seed: int) -> tuple[list[list[Sample]], str | None]:
    """Split pairs into folds of about equal size; questions that are near-duplicates stay in one fold.

    Where all follow one template, so that no two folds could be made, only equal questions stay together.

    Args:
        seeds: The pairs.
        count: How many folds are wanted, at least 2; there are fewer where a fold would have fewer than 4 questions, or
            where there are fewer groups of near-duplicates.
        seed: Decides which group of near-duplicates goes into which fold.

    Returns:
        The folds, each in the order of the pairs; and a sentence where near-duplicates are in different ones.

    Raises:
        InputError: If there are fewer than 8 pairs, or so many equal questions that no two folds can be made.
    """
    if len(seeds) < FEWEST_PAIRS:
        raise InputError(
            f"align: {len(seeds)} pairs are too few to hold some of them back. Give at least {FEWEST_PAIRS}, or train "
            "on all with `isara-pl fit` and judge the answers yourself"
        )
    folds = _split(_grouped(seeds, near=True), count, len(seeds), seed)
    remark = None
    if folds is None:
        folds = _split(_grouped(seeds, near=False), count, len(seeds), seed)
        remark = (
            f"Your questions are near-duplicates of one another (ROUGE-L above {ALIKE}), as questions of one template "
            "are: each part has questions like those that its models were trained on, so all of this is about further "
            "questions of that template."
        )
    if folds is None:
        raise InputError(
            f"align: so many of the {len(seeds)} pairs have the same question that no part of them can be held back. "
            "Give pairs whose questions differ"
        )
    return [[seeds[place] for place in sorted(fold)] for fold in folds], remark


def _split(groups: list[list[int]], count: int, pairs: int, seed: int) -> list[list[int]] | None:
    """Give the places of each fold; None where the largest group leaves too few others."""
    random.Random(derive_seed(seed, "folds")).shuffle(groups)
    groups.sort(key=len, reverse=True)  # the large ones first: the small ones even the folds out
    folds: list[list[int]] = [[] for _ in range(min(count, len(groups), max(2, pairs // FEWEST_IN_A_FOLD)))]
    for group in groups:
        min(folds, key=len).extend(group)
    return None if max(map(len, folds)) > pairs - FEWEST_IN_A_FOLD else folds


def _grouped(seeds: Sequence[Sample], near: bool) -> list[list[int]]:
    """Give groups of places whose questions are the same, or are alike, directly or through others."""
    index = RougeLIndex()
    index.add([sample.question for sample in seeds])
    wordings = [wording(sample.question) for sample in seeds]
    group_of = list(range(len(seeds)))  # each place's group, named by its first place
    for place, sample in enumerate(seeds):
        alike = index.scores(sample.question)
        for other in range(place):
            if (near and alike[other] > ALIKE) or wordings[other] == wordings[place]:
                joined, into = group_of[place], group_of[other]
                group_of = [into if group == joined else group for group in group_of]
    groups: dict[int, list[int]] = {}
    for place, group in enumerate(group_of):
        groups.setdefault(group, []).append(place)
    return [*groups.values()]
