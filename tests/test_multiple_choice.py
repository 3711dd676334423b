import math

import pytest
import torch
from conftest import ARCHITECTURES, make_model

from isara_pl.errors import InputError
from isara_pl.evaluation.metrics import AnswerNLL, MultipleChoice
from isara_pl.evaluation.multiple_choice import choice_scores, mc1, mc2
from isara_pl.models import load_causal_lm, load_tokenizer

PROMPTS = ["Question: Why so?\nAnswer:", "Question: Why so?\nAnswer:", "Question: And who is it then?\nAnswer:"]
CHOICES = [" The sky is blue.", " No.", " Air scatters blue light more than red light."]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_scores_equal_plain_pytorch(tiny, architecture, batch_size):
    model, tokenizer = load_causal_lm(tiny(architecture)).eval(), load_tokenizer(tiny(architecture))
    for prompt, choice, score in zip(
        PROMPTS, CHOICES, choice_scores(model, tokenizer, PROMPTS, CHOICES, batch_size), strict=True
    ):
        start, ids = len(tokenizer(prompt).input_ids), tokenizer(prompt + choice).input_ids
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        assert score == pytest.approx(sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids))), rel=1e-4)


def test_a_choice_longer_than_the_window_is_refused(tmp_path):
    folder = make_model(tmp_path, "gpt2", window=32)
    model, tokenizer = load_causal_lm(folder).eval(), load_tokenizer(folder)
    with pytest.raises(InputError, match=r"the model's window 32: ' Air scatters"):
        choice_scores(model, tokenizer, PROMPTS, CHOICES[:2] + [CHOICES[2] * 9], 2)


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


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_counts_for_the_model(bad):
    assert (mc1([bad], [-1.0]), mc2([bad], [-1.0]), mc2([-1.0], [bad])) == (0.0, 0.0, 0.0)
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
