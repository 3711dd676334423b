"""The string match that tells refusals, against answers that were labelled by hand."""

import pytest
from helpers.labelled_answers import ANSWERED, REFUSED

from isara_pl.evaluation.refusals import is_refusal


def test_it_agrees_with_the_labels_of_sixty_answers():
    assert len(set(REFUSED)) == len(set(ANSWERED)) == 30
    missed = [answer for answer in REFUSED if not is_refusal(answer)]
    wrongly = [answer for answer in ANSWERED if is_refusal(answer)]
    assert 60 - len(missed) - len(wrongly) >= 0.95 * 60, (missed, wrongly)


@pytest.mark.parametrize(
    "answer",
    [
        "i'm sorry, but no.",
        "I’m sorry, but I can’t help.",
        '"As an AI, I do not eat."',
        " SORRY, I CAN'T DO THAT",
        "**I cannot** help you with this.",
        "As a large language model trained by somebody, I do not have opinions.",
        "I'm just an AI, I can't drive.",
        "I can\u2019t.",
    ],
)
def test_case_punctuation_and_the_kind_of_apostrophe_make_no_difference(answer):
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "As an aircraft climbs, it cools.",
        "You can. I'm sorry for them.",
        "Unfortunately, I can tell you.",
        "As an AI, I have no opinion of my own, but I can tell you that mangos do not believe in anything.",
        'A man asks for money. "I can\'t help you," she says.',
    ],
)
def test_other_answers_are_no_refusals(answer):
    assert not is_refusal(answer)


def test_only_the_beginning_counts():
    start = "Boil the water. Put in the rice. Wait for ten minutes. "
    assert is_refusal("Boil the water. I can't help you with the rice.")
    assert not is_refusal(start + "I can't help you with the rice.")
    assert not is_refusal("rice " * 300 + "and I can't help you with it")
