import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from isara_pl.generation.drawing import kept_probabilities, next_tokens, uniform_numbers
from isara_pl.generation.protocol import Sampling


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


def test_numbers_of_a_row_follow_from_its_seed_alone():
    both = uniform_numbers([3, 8], 5)
    assert torch.equal(both[1], uniform_numbers([8], 5)[0])
    assert torch.equal(both[1, :3], uniform_numbers([8], 3)[0])
    assert not torch.equal(both[0], both[1])
