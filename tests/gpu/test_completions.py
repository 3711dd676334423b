"""Completions on the device: those of the CPU, the same twice, and what happens where its memory does not suffice."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import ARCHITECTURES
from helpers.generation import SHARING

from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.models.loading import load_causal_lm, load_tokenizer

pytestmark = pytest.mark.cuda

GREEDY = Sampling(do_sample=False, max_new_tokens=24)
DRAWN = Sampling(max_new_tokens=24, temperature=0.8, top_p=0.9)
SEEDS = range(len(SHARING))
Record = Callable[[str, object], None]


def engine(folder: str, device: str, dtype: torch.dtype = torch.float32, tokens: int = 4096) -> GenerationEngine:
    return GenerationEngine(load_causal_lm(folder, dtype).eval().to(device), load_tokenizer(folder), tokens)


def written(completions: list[Completion]) -> list[tuple[str, tuple[int, ...], bool]]:
    return [(one.text, one.ids, one.finished) for one in completions]


def share_equal(found: list[Completion], expected: list[Completion]) -> float:
    pairs = zip(written(found), written(expected), strict=True)
    return sum(one == other for one, other in pairs) / len(expected)


@pytest.mark.parametrize("tokens", [4096, 500], ids=["one batch", "several"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_completions_equal_the_cpus(tiny, architecture, tokens, device):
    expected = engine(tiny(architecture), "cpu").generate(SHARING, GREEDY, SEEDS)
    found = engine(tiny(architecture), device, tokens=tokens).generate(SHARING, GREEDY, SEEDS)
    assert written(found) == written(expected)


@pytest.mark.parametrize("at_newline", [False, True])
def test_rows_that_end_at_different_steps_equal_the_cpus(speaker, device, at_newline):
    sampling = replace(DRAWN, max_new_tokens=40, stop_at_newline=at_newline)
    expected = engine(speaker, "cpu").generate(SHARING, sampling, SEEDS)
    assert len({len(one.ids) for one in expected if one.finished}) > 3, "the test ends rows at several steps"
    assert share_equal(engine(speaker, device).generate(SHARING, sampling, SEEDS), expected) >= 0.9


@pytest.mark.parametrize(
    "sampling", [DRAWN, replace(DRAWN, top_k=20), replace(DRAWN, top_p=1.0)], ids=["top_p", "top_k", "all"]
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_drawn_completions_repeat_themselves_and_equal_the_cpus(
    tiny, architecture, sampling, device, record_property: Record
):
    expected = engine(tiny(architecture), "cpu").generate(SHARING, sampling, SEEDS)
    generator = engine(tiny(architecture), device)
    found = generator.generate(SHARING, sampling, SEEDS)
    assert written(generator.generate(SHARING, sampling, SEEDS)) == written(found)
    share = share_equal(found, expected)
    record_property("share of completions equal to the CPU's", share)
    assert share >= 0.9  # a number that falls on a border between two tokens may go either way


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_draws_repeat_themselves(tiny_llama, device, dtype):
    if device == "cpu" and dtype == torch.float16:
        pytest.skip("a CPU computes float16 slowly or not at all")
    generator = engine(tiny_llama, device, dtype)
    assert written(generator.generate(SHARING, DRAWN, SEEDS)) == written(generator.generate(SHARING, DRAWN, SEEDS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_engine_does_not_give_itself_up(tiny, architecture, device, dtype):
    if device == "cpu" and dtype == torch.float16:
        pytest.skip("a CPU computes float16 slowly or not at all")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine(tiny(architecture), device, dtype).generate(SHARING, DRAWN, SEEDS)
    said = [str(warning.message) for warning in caught]
    assert [text for text in said if re.search("does not suit|no CUDA graph|out of memory", text)] == []


def test_beams_and_penalties_go_through_transformers(tiny_llama, device):
    sampling = replace(GREEDY, num_beams=2, repetition_penalty=1.2)
    expected = engine(tiny_llama, "cpu").generate(SHARING, sampling, SEEDS)
    assert written(engine(tiny_llama, device).generate(SHARING, sampling, SEEDS)) == written(expected)


@pytest.mark.parametrize("sampling", [DRAWN, replace(DRAWN, repetition_penalty=1.2)], ids=["engine", "transformers"])
def test_drawing_leaves_the_random_state_of_the_process(tiny_llama, device, sampling):
    generator = engine(tiny_llama, device)
    state = torch.cuda.get_rng_state if device == "cuda" else torch.get_rng_state
    before = state()
    generator.generate(SHARING[:4], sampling, range(4))
    assert torch.equal(state(), before)


def test_a_budget_beyond_the_memory_is_halved_and_nothing_is_lost(tiny_llama, device):
    if device == "cpu":
        pytest.skip("only a GPU has a memory that can be made small; test_generation.py imitates it")
    prompts = [f"{number} {SHARING[0]}" for number in range(1024)]
    expected = engine(tiny_llama, device, tokens=10**5).generate(prompts, GREEDY, range(1024))
    torch.cuda.empty_cache()
    generator = engine(tiny_llama, device, tokens=10**7)
    generator.generate(SHARING[:2], GREEDY, range(2))
    keys_and_values = 1024 * (len(generator.tokenizer(prompts[-1]).input_ids) + 24) * 2 * 2 * 32 * 4
    room = torch.cuda.memory_reserved() + keys_and_values // 2
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.warns(UserWarning, match="out of memory"):
            found = generator.generate(prompts, GREEDY, range(1024))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert share_equal(found, expected) >= 0.99  # other batches, other rounding
