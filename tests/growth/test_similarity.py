import random

import numpy as np
import pytest
from rapidfuzz.process import cdist
from rouge_score.rouge_scorer import RougeScorer

from isara_pl.growth.words import RougeLIndex

WORDS = ["the", "Cat", "sat", "on", "a", "mat", "dog's", "RAN", "2nd", "naïve", "--", "Öl½", "it's", "U.S."]


def test_scores_equal_rouge_score_to_the_last_bit():
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(0, 14))) for _ in range(300)] + ["", "...", "the the the"]
    index = RougeLIndex()
    index.add(texts[:150])
    index.add(texts[150:])
    scorer = RougeScorer(["rougeL"])
    for text in draw.sample(texts, 60) + ["", "never seen words here"]:
        reference = [scorer.score(text, other)["rougeL"].fmeasure for other in texts]
        assert index.scores(text).tolist() == reference
        assert index.scores(text, [7, 300, 7]).tolist() == [reference[7], reference[300], reference[7]]


def test_highest_is_the_highest_of_rouge_score_to_the_last_bit():
    draw = random.Random(1)
    words = [*WORDS, *(f"w{i}" for i in range(40))]
    texts = [" ".join(draw.choices(words, k=draw.randint(0, 14))) for _ in range(400)] + [""]
    index, scorer = RougeLIndex(), RougeScorer(["rougeL"])
    for known in (20, 401):  # fewer than a first look takes, and more, after one question was asked already
        index.add(texts[len(index) : known])
        queries = [" ".join(draw.choices(words, k=draw.randint(0, 14))) for _ in range(60)]
        for text in [*queries, *draw.sample(texts, 5), "", "...", "never seen words here", "the the the the"]:
            reference = max(scorer.score(text, other)["rougeL"].fmeasure for other in texts[:known])
            assert index.highest(text) == reference


def test_highest_looks_behind_many_texts_whose_bound_is_higher():
    # the same words in the reverse order: every bound is 1, every score 1 / 6
    reverse = "six five four three two one"
    index = RougeLIndex()
    index.add([reverse] * 50 + ["one two three four something else"] + [reverse] * 50)
    assert index.highest("one two three four five six") == pytest.approx(4 / 6)


def test_highest_compares_few_of_the_texts(monkeypatch):
    draw, compared = random.Random(2), []
    words = [f"w{i}" for i in range(200)]
    index = RougeLIndex()
    index.add(["the " + " ".join(draw.choices(words, k=8)) for _ in range(5000)])
    monkeypatch.setattr(
        "isara_pl.growth.words.cdist", lambda a, b, **more: compared.append(len(b)) or cdist(a, b, **more)
    )
    for text in ("the w0 w1 w2 w3 w4 w5 w6 w7", "the the the the the w0 w1 w2", "never seen words here"):
        compared.clear()
        index.highest(text)
        assert 0 < sum(compared) < 500


def test_more_distinct_tokens_than_one_byte_or_the_surrogates_hold():
    index = RougeLIndex()
    texts = [" ".join(f"w{i + j}" for j in range(8)) for i in range(0, 70_000, 8)]
    index.add(texts)
    scores = index.scores("w55296 w55297 w55298 w55299")
    assert int(np.argmax(scores)) == 55296 // 8
    assert scores.max() == pytest.approx(2 / 3)
    assert (scores > 0).sum() == 1


def test_an_empty_index_has_no_scores():
    assert RougeLIndex().scores("anything").tolist() == []
    assert RougeLIndex().highest("anything") == 0
