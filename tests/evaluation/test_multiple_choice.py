import math

import pytest
import torch

from isara_pl.evaluation.metrics import AnswerNLL, MultipleChoice
from isara_pl.evaluation.multiple_choice import mc1, mc2, mc3


def test_mc2_is_the_share_of_probability():
    correct, incorrect = [-3.0, -5.0], [-4.0, -2.5, -9.0]
    weights = [math.exp(score) for score in correct + incorrect]
    assert mc2(correct, incorrect) == pytest.approx(sum(weights[:2]) / sum(weights))
    # and does not underflow where the probabilities do
    assert mc2([-2000.0], [-2000.0 - math.log(3)]) == pytest.approx(0.75)


def test_mc1_is_the_best_answer_strictly_above_all_incorrect_ones():
    assert mc1([-1.0, -9.0], [-2.0, -3.0]) == 1.0
    assert mc1([-9.0, -1.0], [-2.0]) == 0.0
    assert mc1([-2.0], [-2.0]) == 0.0


def test_mc3_is_the_share_of_correct_answers_strictly_above_all_incorrect_ones():
    assert mc3([-1.0, -3.0, -2.5, -9.0], [-3.0, -4.0]) == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_counts_for_the_model(bad):
    for measure in (mc1, mc2, mc3):
        assert (measure([bad], [-1.0]), measure([-1.0], [bad])) == (0.0, 0.0)
    metric = MultipleChoice()
    metric.update([bad], [-1.0])
    metric.update([-1.0], [-2.0])
    figures = metric.compute()
    assert (figures["mc1"], figures["mc_not_finite"]) == (0.5, 1)


def test_an_item_without_incorrect_answers_is_an_error():
    with pytest.raises(ValueError, match="at least one correct and one incorrect"):
        mc2([-1.0], [])


def test_answer_nll_is_weighted_by_tokens():
    metric = AnswerNLL()
    metric.update(torch.tensor([2.0, 4.0]), torch.tensor([1, 2]))
    metric.update(torch.tensor([9.0]), torch.tensor([3]))
    assert metric.compute() == pytest.approx(15 / 6)
