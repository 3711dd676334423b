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
    folds, remark = folds_of(seeds, wanted, seed=3)
    assert remark is None
    assert sorted(map(len, folds)) == sizes
    assert sorted(sample.id for fold in folds for sample in fold) == [sample.id for sample in seeds]
    assert folds == folds_of(seeds, wanted, seed=3)[0]
    assert folds != folds_of(seeds, wanted, seed=4)[0]


def test_questions_that_are_near_duplicates_stay_in_one_fold():
    alike = ["How long does a refund take?", "how long does a refund take", "How long does the refund take?"]
    seeds = [*different(13), *(pair(20 + place, question) for place, question in enumerate(alike))]
    for seed in range(5):
        having = [fold for fold in folds_of(seeds, 4, seed)[0] if any(sample.question in alike for sample in fold)]
        assert len(having) == 1


def test_questions_of_three_templates_make_three_folds_that_share_none():
    forms = (
        "How long does a refund take on day {}?",
        "Who signs a contract of {} pages?",
        "Where is gate {} to be found?",
    )
    seeds = [pair(n, forms[n % 3].format(n)) for n in range(18)]
    folds, remark = folds_of(seeds, 4, seed=0)
    assert [len({sample.question[:5] for sample in fold}) for fold in folds] == [1, 1, 1]
    assert remark is None


def test_questions_of_one_template_are_split_and_the_likeness_is_told():
    seeds = [pair(n, f"How long does a refund take on day {n}?") for n in range(12)]
    folds, remark = folds_of(seeds, 4, seed=0)
    assert [len(fold) for fold in folds] == [4, 4, 4]
    assert "near-duplicates of one another" in remark


def test_too_few_pairs_and_pairs_of_one_question_are_refused():
    with pytest.raises(InputError, match="7 pairs are too few"):
        folds_of(different(7), 4, seed=0)
    same = [pair(n, "How long does a refund take?" if n else "Who pays?") for n in range(12)]
    with pytest.raises(InputError, match="so many of the 12 pairs have the same question"):
        folds_of(same, 4, seed=0)
