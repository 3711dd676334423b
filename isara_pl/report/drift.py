"""Whether what each outer epoch wrote stays varied, and near its seeds."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from isara_pl.evaluation.diversity import nearest_cosine, vendi_score
from isara_pl.evaluation.text_overlap import ngrams
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
    """Give the diversity of each outer epoch, by the names of `isara_pl.evaluation.diversity.Diversity.compute`.

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
        distinct = [*_distinct(questions), *_distinct(answers)]
        figures: dict[str, float | None] = {
            "distinct_1_questions": distinct[0],
            "distinct_2_questions": distinct[1],
            "distinct_1_answers": distinct[2],
            "distinct_2_answers": distinct[3],
            "nearest_seed_cosine": None if seed_cosines is None else _mean(seed_cosines[own]),
            "nearest_pool_cosine": None if rows is None else _nearest_other(rows),
            "vendi_score": None if rows is None else vendi_score(rows),
            "answer_words": _mean([traits[place].words for place in own]),
            "refusal_rate": _mean([traits[place].refusal for place in own]),
            "copy_rate": _mean([traits[place].copy_of is not None for place in own]),
        }
        found.append(DiversityRow(number, len(own), figures))
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


def _distinct(texts: Sequence[str]) -> tuple[float, float]:
    """Give `distinct_n` for n = 1 and n = 2, with the tokens of each text made once, which halves the time."""
    tokens = [ngrams(text, 1) for text in texts]
    single = [token for of_text in tokens for token in of_text]
    pairs = [pair for of_text in tokens for pair in pairwise(of_text)]
    return len(set(single)) / max(len(single), 1), len(set(pairs)) / max(len(pairs), 1)


def _nearest_other(embeddings: Embeddings) -> float:
    count = len(embeddings)
    if count < 2:
        return 0.0
    looked_up = np.unique(np.linspace(0, count - 1, min(count, MOST_LOOKED_UP)).astype(int))
    nearest = []
    for start in range(0, len(looked_up), BLOCK):
        places = looked_up[start : start + BLOCK]
        cosines = embeddings[places] @ embeddings.T
        cosines[np.arange(len(places)), places] = -1  # itself
        nearest.append(cosines.max(axis=1))
    return float(np.concatenate(nearest).mean())


def _mean(values: Sequence[float] | Embeddings) -> float:
    return float(np.mean(values))
