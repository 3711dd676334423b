"""Context distillation without a run: what is kept of distributions, where they come from, what is learned from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, hold_at_most, make_model, make_seeds
from helpers.distillation import ALL, LINE, dense, lesson, plain, plain_loss
from helpers.generation import PROMPTS, SHARING, engine
from helpers.several_processes import FakeTrainer
from helpers.training import loaded

from isara_pl.generation import writing
from isara_pl.generation.distributions import TopLogprobs, joined, top_logprobs
from isara_pl.generation.engine import GenerationEngine
from isara_pl.growth.prompts import prompt_format
from isara_pl.training.pairs import collate, encode_pair
from isara_pl.training.step import divergence

# -- what is kept


def test_what_ends_an_answer_is_one_token_and_what_is_not_kept_is_the_rest():
    torch.manual_seed(0)
    logits = torch.randn(5, 11)
    probs = logits.softmax(-1)
    whole = top_logprobs(logits, [2, 7, 40], TopLogprobs(99, end_id=7))  # 40 is no output of the model
    assert whole.ids.shape == (5, 11)
    merged = dense(whole, 11)
    torch.testing.assert_close(merged[:, 7], probs[:, [2, 7]].sum(-1))
    assert (merged[:, 2] == 0).all()
    others = [0, 1, 3, 4, 5, 6, 8, 9, 10]
    torch.testing.assert_close(merged[:, others], probs[:, others])
    assert (whole.rest == 0).all()
    few = top_logprobs(logits, [2, 7], TopLogprobs(3, end_id=7))
    torch.testing.assert_close(few.log_probs.exp(), merged.sort(descending=True).values[:, :3])
    torch.testing.assert_close(few.log_probs.exp().sum(-1) + few.rest, torch.ones(5))
    torch.testing.assert_close(logits.softmax(-1), probs, msg="what was given stays")


# -- the divergence


def kept_of(teacher: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    kept = top_logprobs(teacher, [], TopLogprobs(count, end_id=0))
    return kept.ids, kept.log_probs, kept.rest


def test_the_divergence_is_torchs_where_all_tokens_are_kept():
    torch.manual_seed(0)
    teacher, weights = 3 * torch.randn(6, 13), torch.rand(6)
    student = torch.randn(6, 13, requires_grad=True)
    found = divergence(student.log_softmax(dim=-1), *kept_of(teacher, ALL))
    given = [teacher.log_softmax(-1), student.log_softmax(-1)]
    exact = torch.nn.functional.kl_div(given[1], given[0], reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(found, exact)
    gradients = [
        torch.autograd.grad((weights * values).sum(), student, retain_graph=True)[0] for values in (found, exact)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("count", [1, 4, 12])
def test_fewer_tokens_count_the_others_as_one_and_never_more_than_all(count):
    torch.manual_seed(count)
    teacher, student = 3 * torch.randn(40, 13), 3 * torch.randn(40, 13)
    found = divergence(student.log_softmax(dim=-1), *kept_of(teacher, count)).numpy()
    p, q = (np.asarray(logits.double().softmax(-1)) for logits in (teacher, student))
    for row in range(40):
        likeliest = np.argsort(-p[row])[:count]
        mine, yours = (np.append(probs[row][likeliest], 1 - probs[row][likeliest].sum()) for probs in (p, q))
        assert found[row] == pytest.approx((mine * np.log(mine / yours)).sum(), rel=1e-3, abs=1e-5)
        assert found[row] <= (p[row] * np.log(p[row] / q[row])).sum() + 1e-5


def test_what_cannot_come_and_what_is_certain_give_numbers():
    teacher = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf], [0.0, 0.0, 0.0, 0.0], [90.0, 0.0, 0.0, 0.0]])
    for count in (1, 2, ALL):
        student = torch.tensor([[2e4, 0.0, 0.0, 0.0], [2e4, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 3.0]], requires_grad=True)
        found = divergence(student.log_softmax(dim=-1), *kept_of(teacher, count))
        found.sum().backward()
        assert found.isfinite().all()
        assert student.grad is not None
        assert student.grad.isfinite().all()
    assert kept_of(teacher, ALL)[2].tolist() == [0, 0, 0], "nothing is left where all are kept"


# -- the engine


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_recorded_and_what_is_asked_is_what_plain_pytorch_finds(tiny, architecture):
    generator = engine(tiny(architecture))
    end, stops = generator.tokenizer.eos_token_id, generator.stop_ids(LINE)
    vocabulary = generator.model.config.vocab_size
    sampling, seeds = replace(LINE, temperature=50.0, top_p=1.0, max_new_tokens=40), range(len(SHARING))
    written = generator.generate(SHARING, sampling, seeds)
    recorded = generator.generate(SHARING, sampling, seeds, TopLogprobs(ALL, end))
    assert [(one.text, one.ids) for one in recorded] == [(one.text, one.ids) for one in written]
    assert all(one.distributions is None for one in written)
    assert len({one.finished for one in recorded}) == 2
    answers = [list(one.ids) for one in recorded]
    asked = generator.distributions(SHARING, answers, LINE, TopLogprobs(ALL, end))
    vars(generator)["_in_rows"] = False
    by_itself = generator.distributions(SHARING, answers, LINE, TopLogprobs(ALL, end))
    for place, (prompt, one) in enumerate(zip(SHARING, recorded, strict=True)):
        exact = plain(generator.model, generator.tokenizer(prompt).input_ids, answers[place], stops, end)
        assert one.distributions is not None
        assert len(one.distributions) == len(one.ids) + one.finished, "that of the end where there is one"
        for found in (one.distributions, asked[place], by_itself[place]):
            assert float(dense(found, vocabulary)[0, end]) == 0
            torch.testing.assert_close(dense(found, vocabulary), exact[: len(found)], rtol=1e-3, atol=1e-5)
        assert len(asked[place]) == len(by_itself[place]) == len(one.ids) + 1


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2"])
def test_a_long_prompt_beside_a_long_answer_needs_no_place_behind_the_window(architecture, tmp_path):
    generator = engine(make_model(tmp_path, architecture, window=64))
    prompts, answers = ["Question: " + 45 * "x" + "\nAnswer:", "Question: Why?\nAnswer:", "So:"], [[5], [9] * 40, []]
    assert max(len(generator.tokenizer(prompt).input_ids) for prompt in prompts) + 40 > 64
    found = generator.distributions(prompts, answers, LINE, TopLogprobs(ALL, 0))
    for prompt, answer, kept in zip(prompts, answers, found, strict=True):
        exact = plain(generator.model, generator.tokenizer(prompt).input_ids, answer, generator.stop_ids(LINE), 0)
        torch.testing.assert_close(dense(kept, exact.shape[1]), exact, rtol=1e-3, atol=1e-5)


def test_out_of_memory_while_asking_halves_the_budget_and_few_tokens_at_once_change_nothing(tiny_llama, monkeypatch):
    answers = [[5 + place] * place for place in range(len(PROMPTS))]
    whole = engine(tiny_llama).distributions(PROMPTS, answers, LINE, TopLogprobs(8, 0))
    monkeypatch.setattr(writing, "SCORED_TOKENS", 8)  # 2 answers a pass
    hold_at_most(3, monkeypatch)
    generator: GenerationEngine = engine(tiny_llama)
    with pytest.warns(UserWarning, match="out of memory"):
        found = generator.distributions(PROMPTS, answers, LINE, TopLogprobs(8, 0))
    assert generator.budget.tokens < 4096
    for one, of_whole in zip(found, whole, strict=True):
        torch.testing.assert_close(one.log_probs, of_whole.log_probs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.rest, of_whole.rest, rtol=1e-4, atol=1e-5)


# -- the training step


@pytest.mark.parametrize("learned", [True, False], ids=["sft+distill", "distill"])
def test_the_loss_and_its_gradient_are_those_of_plain_pytorch_one_pair_at_a_time(tiny_llama, learned):
    module = loaded(tiny_llama, distill_weight=0.3)
    module.log = lambda *_, **__: None
    module._trainer = FakeTrainer(1)
    vocabulary = module.adapted.config.vocab_size
    qa, seeds = prompt_format("qa", None), make_seeds(5)
    pairs = [encode_pair(sample, qa, module.tokenizer, 256, end=True) for sample in seeds]
    pairs[1], pairs[4] = (lesson(pairs[place], vocabulary, place, learned) for place in (1, 4))
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    loss = module.training_step(collate(pairs, 1), 0)
    expected = plain_loss(module, pairs)
    torch.testing.assert_close(loss, expected)
    for gradient, exact in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(gradient, exact, rtol=1e-3, atol=1e-6)


def test_distributions_that_are_put_together_stay_in_order():
    kept = top_logprobs(torch.randn(7, 9), [], TopLogprobs(4, 0))
    again = joined([kept.rows(0, 2), kept.rows(2, 2), kept.rows(2, 7)])
    assert all(torch.equal(getattr(again, name), getattr(kept, name)) for name in ("ids", "log_probs", "rest"))
