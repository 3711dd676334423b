"""The folds of an alignment: near-duplicates together, sizes about equal, the same for the same seed."""

import pytest

from isara_pl.align.folds import folds_of
from isara_pl.errors import InputError
from isara_pl.growth.samples import Sample


def pair(number: int, question: str) -> Sample:
    return Sample(id=f"seed-{number:05d}", question=question, answer=f"An answer of its own, number {number}.")


def different(count: int) -> list[Sample]:
    return [pair(n, f"What does place{n} export to town{n} by road{n}?") for n in range(count)]


@pytest.mark.parametrize(("pairs", "wanted", "sizes"), [(32, 4, [8] * 4), (18, 4, [4, 4, 5, 5]), (8, 4, [4, 4])])
def test_folds_hold_every_pair_once_and_are_fewer_where_pairs_are_few(pairs, wanted, sizes):
    seeds = different(pairs)
    folds = folds_of(seeds, wanted, seed=3)
    assert sorted(map(len, folds)) == sizes
    assert sorted(sample.id for fold in folds for sample in fold) == [sample.id for sample in seeds]
    assert folds == folds_of(seeds, wanted, seed=3)
    assert folds != folds_of(seeds, wanted, seed=4)


def test_questions_that_are_near_duplicates_stay_in_one_fold():
    alike = ["How long does a refund take?", "how long does a refund take", "How long does the refund take?"]
    seeds = [*different(13), *(pair(20 + place, question) for place, question in enumerate(alike))]
    for seed in range(5):
        having = [fold for fold in folds_of(seeds, 4, seed) if any(sample.question in alike for sample in fold)]
        assert len(having) == 1


def test_too_few_pairs_and_pairs_that_are_all_alike_are_refused():
    with pytest.raises(InputError, match="7 pairs are too few"):
        folds_of(different(7), 4, seed=0)
    same = [pair(n, f"How long does a refund take on day {n}?") for n in range(12)]
    with pytest.raises(InputError, match="12 of 12 questions are near-duplicates"):
        folds_of(same, 4, seed=0)
