import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from isara_pl.generation import writing
from isara_pl.generation.protocol import Sampling
from isara_pl.generation.writing import kept_probabilities, next_tokens, uniform_numbers


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])  # nearly flat: a nucleus of thousands; and peaked
@pytest.mark.parametrize("vocabulary", [50, 5000])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0.7, 0, 1.0), (1.0, 20, 1.0), (1.3, 0, 0.9), (0.9, 30, 0.5)]
)
def test_probabilities_are_those_of_transformers(spread, vocabulary, temperature, top_k, top_p):
    logits = spread * torch.randn(6, vocabulary, generator=torch.Generator().manual_seed(0))
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    expected = warpers(None, logits).softmax(-1)
    kept = kept_probabilities(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    assert torch.equal(kept > 0, expected > 0)
    torch.testing.assert_close(kept / kept.sum(-1, keepdim=True), expected)


def test_every_token_gets_its_share_of_the_numbers():
    probabilities = torch.tensor([0.125, 0.0, 0.5, 0.25, 0.125])
    uniform = (torch.arange(800, dtype=torch.float64) + 0.5) / 800
    drawn = next_tokens(probabilities.log().expand(800, -1), Sampling(), uniform)
    assert torch.bincount(drawn, minlength=5).tolist() == [100, 0, 400, 200, 100]


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_outermost_numbers_draw_a_possible_token(number):
    logits = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf]])
    drawn = next_tokens(logits, Sampling(), torch.tensor([number], dtype=torch.float64))
    assert drawn.item() == (1 if number == 0 else 2)


def test_a_row_without_probabilities_is_marked():
    logits = torch.tensor([[1.0, 2.0], [torch.nan, 2.0]])
    assert next_tokens(logits, Sampling(), torch.tensor([0.9, 0.9])).tolist() == [1, -1]


def test_a_row_that_is_not_numbers_has_no_likeliest_token_either():
    logits = torch.tensor([[1.0, 2.0], [torch.nan, 2.0], [torch.inf, 2.0], [-torch.inf, 2.0]])
    assert next_tokens(logits, Sampling(do_sample=False), torch.zeros(4)).tolist() == [1, -1, -1, 1]


@pytest.mark.parametrize("columns", [1, 2, 5, 64, 4999])
def test_sums_by_doubling_are_running_sums(columns):
    values = torch.rand(3, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(writing._sum_by_doubling(values), values.cumsum(-1), rtol=1e-14, atol=1e-14)


def test_under_deterministic_algorithms_a_gpu_draws_the_same_tokens_by_sums_of_its_own(monkeypatch):
    logits = torch.randn(50, 4000, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(temperature=0.9, top_p=0.95)
    drawn = next_tokens(logits, sampling, uniform)
    monkeypatch.setattr(writing, "_running_sum", writing._sum_by_doubling)
    assert torch.equal(next_tokens(logits, sampling, uniform), drawn)


def test_numbers_of_a_row_follow_from_its_seed_alone():
    both = uniform_numbers([3, 8], 5)
    assert torch.equal(both[1], uniform_numbers([8], 5)[0])
    assert torch.equal(both[1, :3], uniform_numbers([8], 3)[0])
    assert not torch.equal(both[0], both[1])
