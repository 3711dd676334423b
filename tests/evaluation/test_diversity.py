import math
import random

import numpy as np
import pytest
import torch

from isara_pl.evaluation.diversity import (
    FIGURES,
    Diversity,
    distinct_n,
    diversity,
    is_copy,
    nearest_cosine,
    vendi_score,
)

WORDS = ["sky", "sea", "moon", "sun", "wind", "rain", "snow", "fog"]


def random_texts(count, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 6))) for _ in range(count)]


def unit_rows(count, dimension, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_n_is_a_share_of_all_ngrams(n):
    texts = random_texts(40)
    every = [tuple(text.split()[i : i + n]) for text in texts for i in range(len(text.split()) - n + 1)]
    assert distinct_n(texts, n) == len(set(every)) / len(every)


def test_distinct_n_of_hand_made_texts():
    assert distinct_n(["The sky, the sea.", "the SKY"], 1) == 3 / 6
    assert distinct_n(["The sky, the sea.", "the SKY"], 2) == 3 / 4  # none across texts
    assert distinct_n(["", "one"], 2) == 0


@pytest.mark.parametrize(("count", "dimension"), [(5, 12), (12, 12), (40, 12)])
def test_vendi_score_equals_the_full_eigendecomposition(count, dimension):
    rows = unit_rows(count, dimension)
    eigenvalues, _ = np.linalg.eig(rows.astype(np.float64) @ rows.T.astype(np.float64) / count)
    entropy = -sum(value * math.log(value) for value in eigenvalues.real if value > 1e-15)
    assert vendi_score(rows) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_vendi_score_counts_what_is_different():
    assert vendi_score(np.repeat(unit_rows(1, 8), 20, axis=0)) == pytest.approx(1, rel=1e-5)
    assert vendi_score(np.eye(6, dtype=np.float32)) == pytest.approx(6)
    assert vendi_score(np.repeat(np.eye(3, 8, dtype=np.float32), 5, axis=0)) == pytest.approx(3)
    assert vendi_score(np.zeros((0, 8))) == 0


def test_nearest_cosine_leaves_the_row_itself_out():
    rows = np.concatenate([unit_rows(30, 6), np.repeat(unit_rows(1, 6, seed=1), 4, axis=0)])
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2)
    np.testing.assert_allclose(nearest_cosine(rows), cosines.max(axis=1), atol=1e-6)
    others = unit_rows(9, 6, seed=2)
    np.testing.assert_allclose(nearest_cosine(rows, others), (rows @ others.T).max(axis=1), atol=1e-6)


def test_nearest_cosine_without_anything_to_compare_with_is_zero():
    assert nearest_cosine(unit_rows(1, 6)).tolist() == [0]
    assert nearest_cosine(unit_rows(2, 6), np.zeros((0, 6))).tolist() == [0, 0]
    assert nearest_cosine(np.zeros((0, 6))).shape == (0,)


def test_a_copy_has_the_words_of_a_demonstration():
    demonstrations = ["The sky is blue.", "It scatters light!", "天空是蓝色的。"]
    assert is_copy("the sky  is BLUE", demonstrations)
    assert is_copy("天空是蓝色的", demonstrations)
    assert not is_copy("The sky is blue today.", demonstrations)
    assert not is_copy("海是蓝色的。", demonstrations)
    assert not is_copy("The sky is blue.", [])


def test_the_metric_equals_the_functions_over_all_batches():
    questions, embeddings = random_texts(30), unit_rows(30, 6)
    answers = ["I'm sorry, no." if i % 5 == 0 else text for i, text in enumerate(random_texts(30, seed=1))]
    seed_cosines = nearest_cosine(embeddings, unit_rows(4, 6, seed=2))
    copies = [i % 3 == 0 for i in range(30)]
    metric = Diversity()
    with torch.inference_mode():
        for part in (slice(0, 0), slice(0, 11), slice(11, 30)):
            metric.update(
                questions[part],
                answers[part],
                torch.from_numpy(embeddings[part]),
                torch.from_numpy(seed_cosines[part]),
                copies[part],
            )
    figures = diversity(questions, answers, embeddings, seed_cosines, copies)
    assert tuple(figures) == FIGURES
    assert {name: figure.item() for name, figure in metric.compute().items()} == pytest.approx(figures)
    assert figures == pytest.approx(
        {
            "distinct_1_questions": distinct_n(questions, 1),
            "distinct_2_questions": distinct_n(questions, 2),
            "distinct_1_answers": distinct_n(answers, 1),
            "distinct_2_answers": distinct_n(answers, 2),
            "nearest_seed_cosine": seed_cosines.mean(),
            "nearest_pool_cosine": nearest_cosine(embeddings).mean(),
            "vendi_score": vendi_score(embeddings),
            "answer_words": sum(len(answer.split()) for answer in answers) / 30,
            "refusal_rate": 6 / 30,
            "copy_rate": 10 / 30,
        }
    )


def test_a_single_sample_has_finite_figures():
    figures = diversity(["Why?"], ["So."], np.eye(1, 4), np.array([0.5]), [False])
    assert all(math.isfinite(figure) for figure in figures.values())
    assert (figures["nearest_pool_cosine"], figures["vendi_score"]) == (0, pytest.approx(1))
