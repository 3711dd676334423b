"""Answers that say more than what they were written from, or otherwise."""

import pytest
from helpers.report_runs import accepted

from isara_pl.growth.samples import Sample
from isara_pl.report.claims import claims_of, denies, names_in, numbers_in

ASKED = "Is a lily poisonous for cats?"
SEED = Sample("seed-00000", ASKED, "Yes, it is poisonous; in Berlin alone it killed three cats in 2019.")


def claimed(answer: str, question: str = ASKED, cosine: float = 0.9, seed: Sample = SEED):
    """Give what is found of an answer that was written from the seed: a contradiction, an invention."""
    shown = {"question_demonstrations": (seed.id,), "answer_demonstrations": (seed.id,)}
    pool = [seed, accepted(1, 0, question=question, answer=answer, **shown)]
    found = claims_of(pool, [0, 0], [1.0, cosine])
    return found.contradicting.get(1), found.invented.get(1, (0, None))[1]


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        ("No, it is safe for them.", "denies"),
        ("It is not poisonous.", "denies"),
        ("It isn't poisonous at all.", "denies"),
        ("Sie ist nicht giftig.", "denies"),
        ("It is unpoisonous.", "opposite"),
        ("It killed 80 of them.", "different numbers"),
    ],
)
def test_an_answer_that_says_otherwise_than_its_nearest_seed(answer, how):
    contradiction, _ = claimed(answer)
    assert contradiction is not None
    assert "may contradict seed-00000" in contradiction
    assert how in contradiction
    assert claimed(answer, cosine=0.5)[0] is None  # it is another question


def test_an_opposite_question_has_an_opposite_answer():
    assert claimed("No, it is poisonous.", question="Is a lily not poisonous for cats?")[0] is None


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Yes. Vets in Munich saw 41 cats.", ["“41”", "“Munich”"]),
        ("Yes, as Berlin's vets told in 2019.", []),
        ("Yes. Three cats died of it.", []),
        ("Yes, 3 cats died of it.", []),  # the seed has it as a word
        ("Yes, I know.", []),
    ],
)
def test_numbers_and_names_from_nowhere(answer, found):
    _, invention = claimed(answer)
    assert (invention is None) == (not found)
    assert all(one in (invention or "") for one in found)


def test_names_are_not_looked_for_where_a_language_writes_nouns_with_capitals():
    seed = Sample("seed-00000", "Ist die Lilie giftig?", "Ja, die Lilie ist für Katzen und den Hund im Haus ein Gift.")
    assert claimed("Ja, die Tulpe ist für den Vogel ein Gift.", question="Und die Tulpe?", seed=seed) == (None, None)
    assert claimed("Ja, seit 1999 ist sie ein Gift.", question="Und die Tulpe?", seed=seed)[1] is not None


def test_the_words_that_are_looked_at():
    assert numbers_in("Three of 1,000 in 10:30, twelve.") == {"3", "1000", "10:30", "12"}
    assert names_in("The vet of Berlin. Then Anna's cat (Tom) came. I know.") == ["Berlin", "Anna"]
    assert [denies(text) for text in ("It can’t.", "Nobody knows.", "Kein Problem.", "It is known; now.")] == [
        True,
        True,
        True,
        False,
    ]
