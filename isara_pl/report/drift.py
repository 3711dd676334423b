"""Whether what each outer epoch wrote stays varied, and near its seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isara_pl.evaluation.diversity import FIGURES, diversity, nearest_cosine
from isara_pl.growth.samples import Sample
from isara_pl.report.contents import DiversityRow
from isara_pl.report.suspicious import Traits

Embeddings = NDArray[np.float32]
# of more samples the nearest neighbour is looked up for so many only: all pairs of 100,000 would take minutes
MOST_LOOKED_UP = 2000
BLOCK = 200  # rows at once: 80 MB for 100,000 samples


def drift(
    samples: Sequence[Sample],
    traits: Sequence[Traits],
    places: Mapping[int, Sequence[int]],
    embeddings: Embeddings | None,
    seed_cosines: Embeddings | None,
) -> list[DiversityRow]:
    """Give the diversity of each outer epoch, by the names of `isara_pl.evaluation.diversity.FIGURES`.

    `nearest_pool_cosine` is the mean over all its samples, or over 2,000 of them at even distances where there are
    more.

    Args:
        samples: The pool.
        traits: Traits of each.
        places: Places of the samples of each outer epoch; the seeds are outer epoch 0.
        embeddings: Embeddings of the questions, rows of length 1; None leaves out what is computed from them.
        seed_cosines: Those of `nearest_seed_cosines`.
    """
    found = []
    for number, own in places.items():
        questions, answers = ([getattr(samples[p], part) for p in own] for part in ("question", "answer"))
        rows = None if embeddings is None else embeddings[own]
        of_seeds = None if seed_cosines is None else seed_cosines[own]
        copies = [traits[place].copy_of is not None for place in own]
        of_others = None if rows is None else _nearest_others(rows)
        figures = diversity(questions, answers, rows, of_seeds, copies, of_others)
        found.append(DiversityRow(number, len(own), {name: figures.get(name) for name in FIGURES}))
    return found


def nearest_seed_cosines(embeddings: Embeddings, places: Mapping[int, Sequence[int]]) -> Embeddings:
    """Give the cosine of each question with the nearest seed's; of a seed, with the nearest other seed's.

    Args:
        embeddings: Embeddings of the questions, rows of length 1.
        places: Places of the samples of each outer epoch; the seeds are outer epoch 0.
    """
    seeds = embeddings[places[0]]
    cosines = nearest_cosine(embeddings, seeds)
    cosines[places[0]] = nearest_cosine(seeds)
    return cosines


def _nearest_others(embeddings: Embeddings) -> Embeddings:
    """Give the cosine with the nearest other row, of all rows or of some at even distances."""
    count = len(embeddings)
    if count < 2:
        return np.zeros(count, dtype=np.float32)
    looked_up = np.unique(np.linspace(0, count - 1, min(count, MOST_LOOKED_UP)).astype(int))
    nearest = []
    for start in range(0, len(looked_up), BLOCK):
        places = looked_up[start : start + BLOCK]
        cosines = embeddings[places] @ embeddings.T
        cosines[np.arange(len(places)), places] = -1  # itself
        nearest.append(cosines.max(axis=1))
    return np.concatenate(nearest)
