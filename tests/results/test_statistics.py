import math
import random

import numpy as np
import pytest
from scipy.stats import bootstrap

from isara_pl.results.statistics import Difference, Figure, average_units, pair_units, paired_difference, weighted_mean


def data(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Give figures and weights of two methods that share what is hard about a question."""
    generator = np.random.default_rng(seed)
    hard = generator.gamma(4, 0.5, count)
    weights = generator.integers(1, 30, count).astype(float)
    return hard + generator.normal(0, 0.3, count), weights, hard + generator.normal(0.1, 0.3, count), weights


def names(count: int) -> list[str]:
    return [f"question {number}" for number in range(count)]


def test_difference_and_interval_are_those_of_scipy():
    x1, w1, x2, w2 = data(120)
    ours = paired_difference(x1, w1, x2, w2, names(120), resamples=20_000)

    def statistic(x1, w1, x2, w2, axis=-1):
        return (x1 * w1).sum(axis) / w1.sum(axis) - (x2 * w2).sum(axis) / w2.sum(axis)

    theirs = bootstrap(
        (x1, w1, x2, w2), statistic, paired=True, vectorized=True, method="percentile", n_resamples=20_000, rng=1
    )
    assert ours.difference == pytest.approx(np.average(x1, weights=w1) - np.average(x2, weights=w2))
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.03)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * ours.standard_error)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * ours.standard_error)


def test_units_of_a_question_are_drawn_together():
    # an independent loop: questions drawn one by one, each with all of its units
    generator = np.random.default_rng(3)
    questions = [f"q{place}" for place in generator.integers(0, 25, 80)]
    shared = dict(zip(sorted(set(questions)), generator.normal(0, 1, 25), strict=False))
    x1 = np.array([shared[question] for question in questions]) + generator.normal(0, 0.2, 80)
    w1, x2, w2 = generator.uniform(1, 5, 80), generator.normal(0, 0.2, 80), generator.uniform(1, 5, 80)
    ours = paired_difference(x1, w1, x2, w2, questions, resamples=5_000)

    dice, known, drawn = random.Random(0), sorted(set(questions)), []
    for _ in range(5_000):
        units = [unit for q in dice.choices(known, k=len(known)) for unit in range(80) if questions[unit] == q]
        means = [sum(w[u] * x[u] for u in units) / sum(w[u] for u in units) for x, w in ((x1, w1), (x2, w2))]
        drawn.append(means[0] - means[1])
    drawn.sort()
    assert ours.questions == len(known)
    assert ours.standard_error == pytest.approx(np.std(drawn), rel=0.06)
    assert ours.low == pytest.approx(drawn[125], abs=0.15 * ours.standard_error)
    assert ours.high == pytest.approx(drawn[4875], abs=0.15 * ours.standard_error)
    alone = paired_difference(x1, w1, x2, w2, names(80), resamples=5_000)
    assert alone.standard_error < 0.8 * ours.standard_error


def test_copies_of_an_item_are_no_new_evidence():
    x1, w1, x2, w2 = data(40)
    once = paired_difference(x1, w1, x2, w2, names(40), resamples=1_000)
    thrice = paired_difference(*(np.tile(values, 3) for values in (x1, w1, x2, w2)), names(40) * 3, resamples=1_000)
    assert thrice.low == pytest.approx(once.low)
    assert thrice.high == pytest.approx(once.high)
    assert thrice.questions == 40


def test_pairing_takes_out_what_is_hard_about_a_question():
    x1, w1, x2, w2 = data(200)
    paired = paired_difference(x1, w1, x2, w2, names(200), resamples=2_000)
    apart = paired_difference(x1, w1, np.roll(x2, 1), np.roll(w2, 1), names(200), resamples=2_000)
    assert paired.standard_error < 0.5 * apart.standard_error


def test_intervals_hold_the_truth_as_often_as_they_say_and_find_the_detectable_effect():
    generator = np.random.default_rng(5)
    count, runs, spread = 80, 400, 0.3
    effect = 2.8 * spread * math.sqrt(2 / count)
    held, found = 0, 0
    for _ in range(runs):
        hard = generator.normal(0, 1, count)
        x1 = hard + effect + generator.normal(0, spread, count)
        x2 = hard + generator.normal(0, spread, count)
        result = paired_difference(x1, np.ones(count), x2, np.ones(count), names(count), resamples=600)
        held += result.low <= effect <= result.high
        found += result.low > 0
    assert 0.91 <= held / runs <= 0.98
    assert 0.74 <= found / runs <= 0.87
    assert result.minimum_detectable_effect == pytest.approx(2.8 * result.standard_error)
    assert result.minimum_detectable_effect == pytest.approx(effect, rel=0.25)


def test_the_same_seed_gives_the_same_interval():
    x1, w1, x2, w2 = data(50)
    first, again, other = (
        paired_difference(x1, w1, x2, w2, names(50), resamples=1_100, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.difference == other.difference
    assert first.low != other.low


def test_runs_that_differ_in_their_random_seed_are_averaged_and_a_lost_figure_is_not_hidden():
    unit, lost = ("seeds", "q", 0), ("seeds", "r", 0)
    averaged = average_units(
        [(unit, Figure(1.0, 1)), (unit, Figure(4.0, 3)), (lost, Figure(1.0)), (lost, Figure(math.nan))]
    )
    assert averaged[unit] == Figure(13 / 4, 2)
    assert math.isnan(averaged[lost].value)
    assert weighted_mean(averaged.values()) == pytest.approx(13 / 4)
    assert weighted_mean([averaged[lost]]) is None


def test_units_pair_by_seed_set_and_by_question_where_none_is_common():
    isara = {(seeds, "q", 0): Figure(value) for seeds, value in (("a", 0.2), ("b", 0.6))}
    sft = {(seeds, "q", 0): Figure(value) for seeds, value in (("a", 0.1), ("b", 0.9))}
    pretrained = {(None, "q", 0): Figure(0.3), (None, "other", 0): Figure(0.9)}
    same = pair_units(isara, sft)
    assert [unit[0] for unit, _, _ in same.units] == ["a", "b"]
    assert same.by_seed_set() == {"a": pytest.approx(0.1), "b": pytest.approx(-0.3)}
    different = pair_units(isara, pretrained)
    ((unit, ours, theirs),) = different.units
    assert (unit, ours.value, theirs.value) == ((None, "q", 0), pytest.approx(0.4), 0.3)
    assert different.by_seed_set() == {}


def test_a_seed_set_that_only_one_has_is_left_out_and_named():
    both = {("a", "q", 0): Figure(0.2), ("a", "r", 0): Figure(0.4)}
    more = {**both, ("b", "q", 0): Figure(0.9), ("b", "r", 0): Figure(0.9)}
    for first, second in ((both, more), (more, both)):
        paired = pair_units(first, second)
        assert paired.unpaired == ["b"]
        assert paired.difference(resamples=100, seed=0).difference == 0
        assert paired.by_seed_set() == {"a": 0}
    assert pair_units(both, both).unpaired == []


def test_a_pair_without_a_finite_figure_is_left_out_and_counted():
    first = {("s", name, 0): Figure(value) for name, value in (("q", 1.0), ("r", math.nan), ("t", 2.0))}
    second = {("s", name, 0): Figure(value) for name, value in (("q", math.nan), ("r", math.nan), ("t", 1.0))}
    paired = pair_units(first, second)
    assert paired.not_finite == 2
    assert [unit[1] for unit, _, _ in paired.units] == ["t"]
    assert paired.difference(resamples=100, seed=0) is None  # one question tells nothing


def test_a_difference_is_shown_with_its_interval_and_the_sign_of_an_end_that_rounds_to_nothing():
    assert str(Difference(-0.02, -0.04, -0.0004, 0.01, 0.03, 20)) == "-0.020 [-0.040, -0.000]"
