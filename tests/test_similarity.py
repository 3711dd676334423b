import random

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from isara_pl.growth.similarity import RougeLIndex


def test_scores_equal_rouge_score_to_the_last_bit():
    draw = random.Random(0)
    words = ["the", "Cat", "sat", "on", "a", "mat", "dog's", "RAN", "2nd", "naïve", "--", "日本", "it's", "U.S."]
    texts = [" ".join(draw.choices(words, k=draw.randint(0, 14))) for _ in range(300)] + ["", "...", "the the the"]
    index = RougeLIndex()
    index.add(texts[:150])
    index.add(texts[150:])
    scorer = RougeScorer(["rougeL"])
    for text in draw.sample(texts, 60) + ["", "never seen words here"]:
        reference = [scorer.score(text, other)["rougeL"].fmeasure for other in texts]
        assert index.scores(text).tolist() == reference


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
