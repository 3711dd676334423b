"""Probabilities, scores and losses on the device: those of the CPU in float32, near them in 16 bits."""

from collections.abc import Sequence

import pytest
import torch
from conftest import ARCHITECTURES
from helpers.choice_scores import QUESTIONS
from helpers.distillation import ALL, LINE
from helpers.generation import SHARING
from helpers.module import batch_of
from helpers.training import loaded

from gpu.test_completions import SEEDS, engine
from isara_pl.evaluation.choice_scores import choice_scores
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.training.pairs import answer_nll
from isara_pl.training.step import lean_forward

pytestmark = pytest.mark.cuda

ANSWERS = [[5 + (7 * row + place) % 300 for place in range(3 + row % 9)] for row in SEEDS]


def log_probabilities(parts: Sequence[TokenDistributions]) -> torch.Tensor:
    """Give the log-probability of every token at every place, where all were kept; −1000 for what cannot come."""
    rows = [torch.full_like(part.log_probs, -1e3).scatter(1, part.ids.long(), part.log_probs) for part in parts]
    return torch.cat(rows).clamp(min=-1e3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_teachers_distributions_equal_the_cpus(tiny, architecture, device):
    found = []
    for where in ("cpu", device):
        teacher = engine(tiny(architecture), where)
        top = TopLogprobs(ALL, teacher.tokenizer.eos_token_id)
        recorded = teacher.generate(SHARING, LINE, SEEDS, top)
        asked = teacher.distributions(SHARING, ANSWERS, LINE, top)
        again = teacher.distributions(SHARING, [list(one.ids) for one in recorded], LINE, top)
        for one, of_same in zip(recorded, again, strict=True):
            assert one.distributions is not None
            places = len(one.distributions)
            torch.testing.assert_close(
                log_probabilities([one.distributions]), log_probabilities([of_same.rows(0, places)]), rtol=0, atol=1e-3
            )
        found.append(log_probabilities(asked))
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_teachers_distributions_in_16_bits_are_near_those_in_float32(tiny, architecture, device):
    exact, half = engine(tiny(architecture), device), engine(tiny(architecture), device, torch.bfloat16)
    end = exact.tokenizer.eos_token_id
    kept = half.distributions(SHARING, ANSWERS, LINE, TopLogprobs(32, end))
    for part in kept:
        torch.testing.assert_close(part.log_probs.exp().sum(-1) + part.rest, torch.ones(len(part)), rtol=0, atol=1e-4)
    found, expected = (
        log_probabilities(one.distributions(SHARING, ANSWERS, LINE, TopLogprobs(ALL, end))).exp()
        for one in (half, exact)
    )
    assert (found - expected).abs().sum(-1).mean() < 0.1  # of the 2 that they could differ by


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_choice_scores_equal_the_cpus(tiny, architecture, device):
    name = tiny(architecture)
    tokenizer, found = load_tokenizer(name), []
    for where in ("cpu", device):
        scores = choice_scores(load_causal_lm(name).eval().to(where), tokenizer, QUESTIONS, batch_size=2)
        found.append(torch.tensor([score.log_probability for of_one in scores for score in of_one]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-4)
    half = choice_scores(load_causal_lm(name, torch.bfloat16).eval().to(device), tokenizer, QUESTIONS, batch_size=2)
    tokens = torch.tensor([score.tokens for of_one in half for score in of_one])
    apart = torch.tensor([score.log_probability for of_one in half for score in of_one]) - found[0]
    assert (apart / tokens).abs().max() < 0.3


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_training_step_has_the_cpus_loss_and_gradient(tiny, architecture, device, autocast):
    if device == "cpu" and autocast == torch.float16:
        pytest.skip("a CPU computes float16 slowly or not at all")
    dtypes = {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
    found = []
    for where, kind in (("cpu", None), (device, autocast)):
        module = loaded(tiny(architecture), dtype=dtypes[kind]).to(where)
        batch = batch_of(module)
        moved = {key: value.to(where) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        enabled = torch.autocast(where, kind or torch.bfloat16, enabled=kind is not None)
        with enabled, lean_forward(module.adapted, batch["input_ids"].shape[1], compiled=False):
            sums, tokens = answer_nll(module.adapted, moved)
            loss = sums.sum() / tokens.sum()
        loss.backward()
        gradients = [parameter.grad.flatten() for parameter in module.parameters() if parameter.requires_grad]
        found.append((loss.detach().cpu(), torch.cat(gradients).cpu()))
    (expected, exact), (loss, gradient) = found
    if autocast is None:
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, exact, rtol=1e-3, atol=1e-5)
    else:
        torch.testing.assert_close(loss, expected, rtol=2e-2, atol=0)
        assert (gradient - exact).norm() / exact.norm() < 0.2
