"""What a GPU is spared at every token, shown without one: devices without data, and graphs that only call again."""

import warnings
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
import transformers.masking_utils
from conftest import ARCHITECTURES, make_model
from transformers import MistralConfig, MistralForCausalLM

from isara_pl.generation import writing
from isara_pl.generation.decoding import Batch
from isara_pl.generation.distributions import TopLogprobs
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.kv_cache import Row
from isara_pl.generation.protocol import Sampling
from isara_pl.generation.step_graphs import StepGraphs
from isara_pl.generation.writing import uniform_numbers
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.run.stages import count, stage

CONTEXT = f"Question: Why?\nAnswer: The air scatters light {'and more ' * 40}.\n\n"
PROMPTS = [f"{CONTEXT * (i % 2)}Question: Why is the sky {'very ' * i}blue?\nAnswer:" for i in (3, 0, 7, 1, 5, 4, 2)]
SAMPLINGS = {
    "greedy": Sampling(do_sample=False, max_new_tokens=40),
    "top_p": Sampling(max_new_tokens=40, temperature=1.5, top_p=0.9, stop_at_newline=True),
    "plain": Sampling(max_new_tokens=37, temperature=2.0, stop_at_newline=True),
}


def engine(folder: str) -> GenerationEngine:
    # in float64 the rounding of other shapes, which differs by processor, decides no token
    return GenerationEngine(load_causal_lm(folder, torch.float64).eval(), load_tokenizer(folder), 10**6)


@pytest.fixture
def graphs(monkeypatch):
    """Stand-ins of graphs on a CPU: capturing runs nothing and replaying runs all, as with real ones."""
    taken = {"captured": 0, "replayed": 0}

    def captured(self, rows):
        logits = torch.empty(rows.count, self._model.config.vocab_size)
        taken["captured"] += 1

        def replay():
            taken["replayed"] += 1
            logits.copy_(rows.append_fixed())

        return replay, logits

    monkeypatch.setattr(StepGraphs, "suit", lambda self: not self._refused)
    monkeypatch.setattr(StepGraphs, "_captured", captured)
    return taken


# each architecture and each way of drawing; all pairs of them in `make test-slow`
@pytest.mark.parametrize(
    ("architecture", "sampling"),
    [
        pytest.param(*pair, marks=() if pair[0] == "llama" or pair[1] == "top_p" else pytest.mark.slow)
        for pair in product(ARCHITECTURES, SAMPLINGS)
    ],
)
def test_steps_of_fixed_shapes_give_the_same_completions(tiny, architecture, sampling, graphs, monkeypatch):
    sampling = SAMPLINGS[sampling]
    seeds = range(len(PROMPTS) * 4)
    with monkeypatch.context() as without:
        without.setattr(StepGraphs, "suit", lambda self: False)
        expected = engine(tiny(architecture)).generate(PROMPTS * 4, sampling, seeds, TopLogprobs(6, 0))
    monkeypatch.setattr(writing, "TOKENS_BETWEEN_LOOKS", 8)
    monkeypatch.setattr(writing, "looks_at_every_token", lambda device: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = engine(tiny(architecture)).generate(PROMPTS * 4, sampling, seeds, TopLogprobs(6, 0))
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.ids for one in found] == [one.ids for one in expected]
    assert [one.finished for one in found] == [one.finished for one in expected]
    for one, of_expected in zip(found, expected, strict=True):
        assert one.distributions is not None
        torch.testing.assert_close(one.distributions.log_probs, of_expected.distributions.log_probs)
        assert len(one.distributions) == len(one.ids) + one.finished
    assert graphs["replayed"] > 3 * graphs["captured"] > 0


def test_rows_that_end_leave_when_they_are_half_and_a_new_graph_takes_over(tiny_llama, graphs, monkeypatch):
    monkeypatch.setattr(writing, "TOKENS_BETWEEN_LOOKS", 4)
    monkeypatch.setattr(writing, "looks_at_every_token", lambda device: False)
    sampling = replace(SAMPLINGS["plain"], max_new_tokens=120)
    rows = []
    own = writing.Rows.append_fixed

    def counted(self):
        rows.append(self.count)
        return own(self)

    monkeypatch.setattr(writing.Rows, "append_fixed", counted)
    monkeypatch.setattr(GenerationEngine, "stop_ids", lambda self, sampling: [*range(3, 15)])  # rows end often
    engine(tiny_llama).generate(PROMPTS * 8, sampling, range(len(PROMPTS) * 8))
    sizes = sorted(set(rows), reverse=True)
    assert rows == sorted(rows, reverse=True)
    assert len(sizes) > 2
    assert all(2 * smaller <= larger for larger, smaller in pairwise(sizes))


@pytest.mark.parametrize("fault", ["other logits", "not captured"])
def test_a_graph_that_does_not_give_the_same_is_given_up_loudly(tiny_llama, graphs, monkeypatch, fault):
    sampling = SAMPLINGS["top_p"]
    own = writing.Rows.append_fixed

    def faulty(self):
        if fault == "not captured":
            raise RuntimeError("operation not permitted when stream is capturing")
        return own(self) + 1.0

    monkeypatch.setattr(writing.Rows, "append_fixed", faulty)
    generator = engine(tiny_llama)
    message = (
        "differ from those without by 1 in the mean"
        if fault == "other logits"
        else "cannot be captured .operation not permitted"
    )
    with pytest.warns(UserWarning, match=rf"LlamaForCausalLM: no CUDA graph of a decoding step, since .*{message}"):
        found = generator.generate(PROMPTS, sampling, range(len(PROMPTS)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generator.generate(PROMPTS, sampling, range(len(PROMPTS))) == found
    monkeypatch.setattr(StepGraphs, "suit", lambda self: False)
    assert engine(tiny_llama).generate(PROMPTS, sampling, range(len(PROMPTS))) == found


def test_a_graph_that_errs_only_in_longer_rows_is_given_up_there(tiny_llama, graphs, monkeypatch):
    sampling = SAMPLINGS["top_p"]
    own = writing.Rows.append_fixed

    def near(self):  # as where a layer attends to the nearest columns only, counted from the last one
        logits = own(self)
        logits[0] += (self.columns > 120) * 2e-3 * logits.std()  # one row of many
        return logits

    monkeypatch.setattr(writing.Rows, "append_fixed", near)
    generator, prompts = engine(tiny_llama), PROMPTS[::2] * 8  # these share their context
    short = [prompt.removeprefix(CONTEXT) for prompt in prompts]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator.generate(short, sampling, range(len(short)))
        captured = graphs["captured"]
        generator.generate(short, sampling, range(len(short)))
    assert graphs["captured"] == captured + captured - 1  # the first time one more was tried out
    with pytest.warns(UserWarning, match="no CUDA graph of a decoding step"):
        generator.generate([CONTEXT + prompt for prompt in short], sampling, range(len(short)))


class Steps:
    """Rows of a model that counts 7 operations a step."""

    count, columns = 3, 16

    def __init__(self, fails=False):
        self.fails = fails
        self.modes = []

    def append_fixed(self):
        count(flops=7)
        self.modes.append(torch.cuda.get_sync_debug_mode())
        if self.fails:
            raise RuntimeError("called a synchronizing CUDA operation")
        return torch.zeros(3, 5)


@pytest.fixture
def captures(monkeypatch):
    """Stand-ins of what CUDA gives; a list of the graphs that were replayed."""
    replayed, mode = [], [0]

    class Graph:
        def replay(self):
            replayed.append(self)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, capture_error_mode: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda new: mode.__setitem__(0, new))
    return replayed


def test_operations_of_a_graph_are_counted_when_it_is_replayed(captures):
    with stage("answers") as answers:
        replay, _ = StepGraphs(None)._captured(Steps())
        assert answers.flops == 0
        for _ in range(3):
            replay()
    assert answers.flops == 21
    assert len(captures) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_what_would_wait_for_the_device_is_refused_in_a_capture_alone(captures, fails):
    steps = Steps(fails)
    with pytest.raises(RuntimeError, match="synchronizing") if fails else nullcontext():
        StepGraphs(None)._captured(steps)
    assert steps.modes == ["error"]
    assert torch.cuda.get_sync_debug_mode() == 0


def test_a_lack_of_memory_while_capturing_is_no_fault_of_the_graph(tiny_llama, graphs, monkeypatch):
    captured = StepGraphs._captured

    def no_memory(self, rows):
        if rows.count > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return captured(self, rows)

    monkeypatch.setattr(StepGraphs, "_captured", no_memory)
    expected = engine(tiny_llama)
    monkeypatch.setattr(expected, "_graphs", None)
    seeds = range(len(PROMPTS))
    generator = engine(tiny_llama)
    with pytest.warns(UserWarning, match="out of memory while generating for 7 prompts at once"):
        found = generator.generate(PROMPTS, SAMPLINGS["top_p"], seeds)
    assert found == expected.generate(PROMPTS, SAMPLINGS["top_p"], seeds)
    assert generator._graphs.suit()


@pytest.mark.parametrize("fixed", [False, True], ids=["append", "append_fixed"])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_token_is_drawn_and_appended_without_waiting_for_the_device(tiny, architecture, sampling, fixed, monkeypatch):
    # on `meta` nothing can be read back; and a graph may hold no copy from the CPU, such as torch.tensor makes
    model = load_causal_lm(tiny(architecture)).eval().to("meta")
    batch = Batch(model, [[5, 6, 7, 8], [9, 9, 4]], [[Row(0), Row(1)]], sampling.max_new_tokens)
    logits = torch.randn(2, model.config.vocab_size, device="meta")
    # as while a graph is captured: else transformers asks whether nothing is masked
    monkeypatch.setattr(transformers.masking_utils, "is_tracing", lambda tensor=None: True)
    numbers = uniform_numbers([0, 1], sampling.max_new_tokens)
    with torch.inference_mode():
        rows = writing.Rows(batch, logits, sampling, numbers, [3], TopLogprobs(4, 3))
        monkeypatch.setattr(torch, "tensor", None)
        given = rows.append_fixed() if fixed else rows.append(0)
    assert given.device.type == "meta"
    assert given.shape == logits.shape


def test_layers_that_attend_to_a_moving_window_get_no_graph(tiny_llama, monkeypatch):
    config = MistralConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        intermediate_size=16, sliding_window=8,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(MistralForCausalLM, "device", torch.device("cuda:0"))
    llama = load_causal_lm(tiny_llama)
    monkeypatch.setattr(type(llama), "device", torch.device("cuda:0"))
    assert not StepGraphs(MistralForCausalLM(config)).suit()
    config.sliding_window = None
    assert StepGraphs(MistralForCausalLM(config)).suit()
    graphs = StepGraphs(llama)
    assert graphs.suit()
    torch.use_deterministic_algorithms(True)
    try:
        assert not graphs.suit()
    finally:
        torch.use_deterministic_algorithms(False)
    assert graphs.suit()
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert not graphs.suit()


def test_on_a_cpu_there_is_no_graph(tmp_path):
    assert not StepGraphs(load_causal_lm(make_model(tmp_path))).suit()
