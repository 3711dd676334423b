import pytest
from conftest import make_seeds
from rouge_score.rouge_scorer import RougeScorer

from isara_pl.callbacks import CopiedAnswer, NearDuplicate, TooShort, Unfinished
from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import RougeLIndex


def pair(question: str, answer: str = "An answer of quite a few words.", **more) -> Sample:
    return Sample("1-00000", question, answer, 1, **more)


@pytest.fixture
def pool() -> SamplePool:
    return SamplePool(make_seeds())


def test_too_short_counts_words_of_both(pool):
    verdict = TooShort().verdict
    assert verdict(pair("Why is it not so?"), pool).reason is None
    assert verdict(pair("Why is it so?"), pool).figure == 4
    assert verdict(pair("Why is it so?"), pool).reason == "question under 5 words"
    assert verdict(pair("Why is it not so?", "It is not so."), pool).reason == "answer under 5 words"
    assert TooShort(min_words=3).verdict(pair("Why is that?"), pool).reason is None


def test_near_duplicate_is_rouge_l_above_the_threshold(pool):
    known = pool.samples[0].question
    near = known.replace("day", "night")
    figure = RougeScorer(["rougeL"]).score(near, known)["rougeL"].fmeasure
    verdict = NearDuplicate(0.7).verdict(pair(near), pool)
    assert figure > 0.7
    assert verdict.figure == figure
    assert verdict.reason is not None
    # exactly at the threshold is still new
    assert NearDuplicate(figure).verdict(pair(near), pool).reason is None
    assert NearDuplicate(0.7).verdict(pair("Who was the first person on top?"), pool).reason is None


def test_near_duplicate_sees_what_was_accepted_a_moment_ago(pool):
    duplicate_filter = NearDuplicate()
    question = "Who was the first person on top of it?"
    assert duplicate_filter.verdict(pair(question), pool).reason is None
    pool.add(pair(question))
    assert duplicate_filter.verdict(pair(question), pool).figure == 1.0
    # and forgets it with the pool
    assert duplicate_filter.verdict(pair(question), SamplePool(make_seeds())).reason is None


def test_near_duplicate_against_the_context_only(pool):
    near = pool.samples[0].question.replace("day", "night")
    against_context = NearDuplicate(against="context")
    assert against_context.verdict(pair(near, question_demonstrations=("seed-00000",)), pool).reason is not None
    assert against_context.verdict(pair(near, question_demonstrations=("seed-00001",)), pool).figure < 1
    equal = pair(pool.samples[0].question, question_demonstrations=("seed-00001",))
    assert against_context.verdict(equal, pool).reason == "question is in the pool already"


def test_near_duplicate_against_the_context_compares_with_nothing_else(pool, monkeypatch):
    compared, plain = [], RougeLIndex._scores
    monkeypatch.setattr(
        RougeLIndex, "_scores", lambda self, q, places: compared.extend(places) or plain(self, q, places)
    )
    candidate = pair("Is this one new?", question_demonstrations=("seed-00003", "seed-00001"))
    NearDuplicate(against="context").verdict(candidate, pool)
    assert compared == [3, 1]


def test_near_duplicate_against_the_context_knows_the_questions_of_this_pool_only(pool):
    against_context = NearDuplicate(against="context")
    question = "Who was the first person on top of it?"
    candidate = pair(question, question_demonstrations=("seed-00001",))
    assert against_context.verdict(candidate, pool).reason is None
    pool.add(pair(question))
    assert against_context.verdict(candidate, pool).reason == "question is in the pool already"
    assert against_context.verdict(candidate, SamplePool(make_seeds())).reason is None


def test_copied_answer_is_either_way_round(pool):
    verdict = CopiedAnswer().verdict
    assert verdict(pair("Why is the sky blue?", "the  sky Blue."), pool).reason is not None
    assert verdict(pair("Is it so?", "You ask: is it so? I do not know."), pool).reason is not None
    assert verdict(pair("Is it so?", "It is not so."), pool).reason is None


def test_unfinished_question_or_answer(pool):
    assert Unfinished().verdict(pair("Is it so?"), pool).reason is None
    assert Unfinished().verdict(pair("Is it so?", answer_finished=False), pool).reason == "answer ran out of tokens"
    assert Unfinished().verdict(pair("Is it so?", question_finished=False), pool).reason == "question ran out of tokens"


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="TooShort: min_words is 0; allowed"):
        TooShort(min_words=0)
    with pytest.raises(InputError, match=r"NearDuplicate: threshold is 1\.5; allowed"):
        NearDuplicate(threshold=1.5)
