import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest import ARCHITECTURES, hold_at_most, make_model, make_tokenizer
from helpers.arithmetic import product_of_16_bit_parts
from helpers.generation import CONTEXTS, PROMPTS, SHARING, engine
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from isara_pl.errors import InputError
from isara_pl.generation import decoding, writing
from isara_pl.generation.decoding import why_not_in_rows
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.kv_cache import layers_of
from isara_pl.generation.protocol import Sampling
from isara_pl.models.loading import load_causal_lm, load_tokenizer

GREEDY = Sampling(do_sample=False, max_new_tokens=12)
DRAWN = Sampling(max_new_tokens=12, temperature=0.8, top_p=0.9)


def greedy_tokens(model, ids, ends, most):
    written: list[int] = []
    with torch.no_grad():
        while len(written) < most:
            logits = model(input_ids=torch.tensor([ids + written])).logits[0, -1]
            if not written:
                logits[ends] = -torch.inf
            written.append(int(logits.argmax()))
            if written[-1] in ends:
                break
    return written


@pytest.mark.parametrize("prompts", [PROMPTS, SHARING], ids=["apart", "sharing"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_batches_equal_plain_greedy_decoding(tiny, architecture, prompts):
    generator = engine(tiny(architecture))
    tokenizer, model = generator.tokenizer, generator.model
    assert generator._in_rows
    completions = generator.generate(prompts, GREEDY, range(len(prompts)))
    for prompt, completion in zip(prompts, completions, strict=True):
        written = greedy_tokens(model, tokenizer(prompt).input_ids, [tokenizer.eos_token_id], 12)
        assert completion.finished is (written[-1] == tokenizer.eos_token_id)
        assert completion.text.rstrip() == tokenizer.decode(written, skip_special_tokens=True).rstrip()


def test_a_sliding_window_shorter_than_the_prompt_is_kept_to(tmp_path):
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=512, sliding_window=24, initializer_range=0.2, eos_token_id=0,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    generator = GenerationEngine(model, tokenizer, 4096)
    assert generator._in_rows
    for prompt, completion in zip(SHARING, generator.generate(SHARING, GREEDY, range(len(SHARING))), strict=True):
        written = greedy_tokens(model, tokenizer(prompt).input_ids, [0], 12)
        assert completion.text.rstrip() == tokenizer.decode(written, skip_special_tokens=True).rstrip()


def test_positions_that_a_model_adds_to_its_attention_are_right(tmp_path):
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2)
    model = BloomForCausalLM(config).eval()
    model.generation_config.eos_token_id = 0
    generator = GenerationEngine(model, tokenizer, 4096)
    for prompt, completion in zip(SHARING, generator.generate(SHARING, GREEDY, range(len(SHARING))), strict=True):
        written = greedy_tokens(model, tokenizer(prompt).input_ids, [0], 12)
        assert completion.text.rstrip() == tokenizer.decode(written, skip_special_tokens=True).rstrip()


def test_attention_without_torchs_kernels_gives_the_same(tiny_llama):
    generator, eager = engine(tiny_llama), engine(tiny_llama)
    eager.model.set_attn_implementation("eager")
    seeds = range(len(SHARING))
    assert eager._in_rows
    assert eager.generate(SHARING, DRAWN, seeds) == generator.generate(SHARING, DRAWN, seeds)


def test_16_bit_draws_repeat_themselves(tiny_llama):
    model = load_causal_lm(tiny_llama, torch.bfloat16).eval()
    generator = GenerationEngine(model, load_tokenizer(tiny_llama), 4096)
    assert generator._in_rows
    seeds = range(len(SHARING))
    assert generator.generate(SHARING, DRAWN, seeds) == generator.generate(SHARING, DRAWN, seeds)


def test_a_model_without_keys_and_values_generates_with_transformers():
    tokenizer = make_tokenizer()
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, state_size=4, num_hidden_layers=1, eos_token_id=0)
    generator = GenerationEngine(MambaForCausalLM(config).eval(), tokenizer, 4096)
    assert layers_of(generator.model) is None
    with pytest.warns(UserWarning, match="MambaForCausalLM does not suit the engine's own batches: it keeps a state"):
        assert not generator._in_rows
    assert len(generator.generate(PROMPTS[:2], GREEDY, [0, 1])) == 2


def without_mask(self, ids, lengths, begin, end, last, own=decoding.Batch._forward):
    return own(self, ids, torch.full_like(lengths, int(lengths.max())), begin, end, last)


def rounding_layers(model):
    """Let a float32 model compute in 16 bits by itself, whatever the machine's own products are."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.forward = lambda inputs, layer=layer: product_of_16_bit_parts(inputs, layer.weight).bfloat16().float()
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_errs_in_rows_is_found_out_and_the_warning_says_by_how_much(tiny_llama, monkeypatch, dtype):
    generator = GenerationEngine(load_causal_lm(tiny_llama, dtype).eval(), load_tokenizer(tiny_llama), 4096)
    assert why_not_in_rows(generator.model) is None
    monkeypatch.setattr(decoding.Batch, "_forward", without_mask)
    with pytest.warns(UserWarning, match=r"LlamaForCausalLM does not suit .* transformers' generate") as warned:
        assert not generator._in_rows
    numbers = re.search(r"by (\S+) in the mean, (\S+) at most; allowed is a mean of (\S+)\.", str(warned[0].message))
    mean, largest, allowed = map(float, numbers.groups())
    assert largest > mean > allowed > 0


def test_rounding_inside_of_float32_products_is_not_taken_for_an_error(tiny_llama, monkeypatch):
    # as TF32 does, or torch.set_float32_matmul_precision("medium"), on a machine with it
    monkeypatch.setattr(torch.nn.functional, "linear", product_of_16_bit_parts)
    model = load_causal_lm(tiny_llama).eval()
    assert why_not_in_rows(model) is None
    monkeypatch.setattr(decoding.Batch, "_forward", without_mask)
    assert re.search(r"allowed is a mean of 0\.[1-9]", why_not_in_rows(model))


def test_nor_is_the_rounding_of_a_float32_model_that_computes_in_16_bits(tiny_llama, monkeypatch):
    model = rounding_layers(load_causal_lm(tiny_llama).eval())
    assert why_not_in_rows(model) is None
    monkeypatch.setattr(decoding.Batch, "_forward", without_mask)
    assert re.search(r"allowed is a mean of 0\.[1-9]", why_not_in_rows(model))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_torchs_faster_float32_products_leave_the_engine_in_use(tiny_llama, precision):
    was = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)  # changes nothing on a machine that has none
    try:
        assert engine(tiny_llama)._in_rows
    finally:
        torch.set_float32_matmul_precision(was)


def test_what_prompts_share_is_computed_once(tiny_llama):
    generator = engine(tiny_llama, tokens=10**5)
    assert generator._in_rows
    computed: list[int] = []
    generator.model.model.layers[0].register_forward_pre_hook(
        lambda _, inputs: computed.append(inputs[0][..., 0].numel())
    )
    one = Sampling(do_sample=False, max_new_tokens=1)
    lengths = [len(generator.tokenizer(prompt).input_ids) for prompt in SHARING]
    generator.generate(SHARING[:1], one, [0])
    assert sum(computed) == lengths[0]
    computed.clear()
    generator.generate(SHARING[:1] * 16, one, range(16))
    assert sum(computed) == lengths[0]
    computed.clear()
    generator.generate(SHARING, one, range(len(SHARING)))
    contexts = sum(len(generator.tokenizer(context).input_ids) for context in CONTEXTS)
    assert contexts < sum(computed) < contexts + sum(lengths[-5:]) * 5 < 0.6 * sum(lengths)


def test_a_finished_row_leaves_the_batch(tiny_llama):
    generator = engine(tiny_llama)
    sampling = Sampling(max_new_tokens=60, stop_at_newline=True, temperature=2.0)
    assert generator._in_rows
    rows: list[int] = []
    generator.model.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    completions = generator.generate(PROMPTS * 8, sampling, range(40))
    steps = rows[-50:]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0] <= 40
    assert any(completion.finished for completion in completions)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN, replace(DRAWN, top_k=20)], ids=["greedy", "top_p", "top_k"])
def test_neither_batch_nor_order_nor_neighbours_change_what_is_drawn(tiny_llama, sampling):
    seeds = [7 * place for place in range(len(SHARING))]
    whole = engine(tiny_llama).generate(SHARING, sampling, seeds)
    for tokens in (1, 700, 10**6):
        assert engine(tiny_llama, tokens).generate(SHARING, sampling, seeds) == whole
    assert engine(tiny_llama).generate(SHARING[::-1], sampling, seeds[::-1]) == whole[::-1]
    alone = [engine(tiny_llama).generate([SHARING[place]], sampling, [seeds[place]])[0] for place in (0, 7, 20)]
    assert alone == [whole[place] for place in (0, 7, 20)]


def test_draws_follow_from_the_seeds_alone_and_leave_the_process_as_it_was(tiny_llama):
    generator = engine(tiny_llama)
    for sampling in (Sampling(), Sampling(num_beams=2)):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        first = generator.generate(PROMPTS, sampling, [1] * 5)
        assert torch.equal(torch.rand(3), expected)
        assert generator.generate(PROMPTS, sampling, [1] * 5) == first
        assert generator.generate(PROMPTS, sampling, [2] * 5) != first


def test_tokens_are_drawn_as_often_as_the_model_says(tiny_llama):
    generator = engine(tiny_llama)
    ids = generator.tokenizer(PROMPTS[0]).input_ids
    with torch.no_grad():
        logits = generator.model(input_ids=torch.tensor([ids])).logits[0, -1]
    logits[generator.tokenizer.eos_token_id] = -torch.inf
    expected = (logits / 0.8).softmax(-1)
    draws = 4000
    drawn = writing.complete(
        generator.model, [ids] * draws, Sampling(max_new_tokens=1, temperature=0.8), range(draws), [generator.tokenizer.eos_token_id]
    )  # fmt: skip
    counts = Counter(one.ids[0] for one in drawn)
    for token in expected.topk(10).indices.tolist():
        share = expected[token].item()
        assert counts[token] / draws == pytest.approx(share, abs=5 * (share * (1 - share) / draws) ** 0.5)


def test_out_of_memory_halves_the_budget_and_loses_nothing(tiny_llama, monkeypatch):
    whole = engine(tiny_llama).generate(SHARING, DRAWN, range(len(SHARING)))
    hold_at_most(5, monkeypatch)
    generator = engine(tiny_llama)
    with pytest.warns(UserWarning, match=r"out of memory while generating for \d+ prompts at once: going on with"):
        assert generator.generate(SHARING, DRAWN, range(len(SHARING))) == whole
    assert generator.budget.tokens < 4096


def test_a_prompt_that_no_memory_holds_is_told(tiny_llama, monkeypatch):
    def no_memory(self):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    generator = engine(tiny_llama)
    assert generator._in_rows
    monkeypatch.setattr(decoding.Batch, "prefill", no_memory)
    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises(InputError, match=r"memory does not suffice to generate for one prompt of \d+ tokens"),
    ):
        generator.generate(PROMPTS, GREEDY, range(5))


def test_other_errors_of_a_model_are_not_taken_for_a_lack_of_memory(tiny_llama, monkeypatch):
    def broken(self):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    generator = engine(tiny_llama)
    assert generator._in_rows
    monkeypatch.setattr(decoding.Batch, "prefill", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        generator.generate(PROMPTS, GREEDY, range(5))


@pytest.mark.parametrize("sampling", [DRAWN, GREEDY], ids=["drawn", "greedy"])
def test_a_model_that_gives_no_numbers_is_told(tiny_llama, sampling):
    generator = engine(tiny_llama)
    generator.model.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(InputError, match="logits are not numbers, so nothing can be drawn: training diverged"):
        generator.generate(PROMPTS, sampling, range(5))


def test_a_newline_inside_a_token_ends_a_completion_where_asked(tiny_llama):
    generator = engine(tiny_llama)
    stop = Sampling(max_new_tokens=60, stop_at_newline=True, temperature=2.0)
    completions = generator.generate(PROMPTS * 8, stop, range(40))
    assert any(completion.finished for completion in completions)
    assert not any("\n" in completion.text for completion in completions)
    free = generator.generate(PROMPTS * 8, Sampling(max_new_tokens=60, temperature=2.0), range(40))
    assert any("\n" in completion.text for completion in free)


def test_a_prompt_longer_than_the_window_is_refused(tmp_path):
    generator = engine(make_model(tmp_path, "gpt2", window=32))
    with pytest.raises(InputError, match=r"a prompt of \d+ tokens and 12 new ones do not fit .* window of 32"):
        generator.generate(PROMPTS, GREEDY, range(5))


def test_a_prompt_without_tokens_is_refused(tiny_llama):
    with pytest.raises(InputError, match="a prompt without any token"):
        engine(tiny_llama).generate(["", *PROMPTS], GREEDY, range(6))


def test_no_prompts_give_no_completions(tiny_llama):
    assert engine(tiny_llama).generate([], GREEDY, []) == []


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=8, num_beams=3, repetition_penalty=1.2, no_repeat_ngram_size=2),
        Sampling(max_new_tokens=8, generation_config={"min_p": 0.2, "renormalize_logits": True}),
        Sampling(max_new_tokens=8, do_sample=False, repetition_penalty=1.2),
    ],
)
def test_beams_penalties_and_all_other_options_of_transformers_are_reachable(tiny_llama, sampling):
    for tokens in (1, 4096):
        for completion in engine(tiny_llama, tokens).generate(PROMPTS, sampling, range(5)):
            assert completion.text


def test_min_p_of_1_leaves_the_likeliest_token(tiny_llama):
    likeliest = Sampling(max_new_tokens=12, generation_config={"min_p": 1.0})
    generator = engine(tiny_llama)
    assert generator.generate(PROMPTS, likeliest, range(5)) == generator.generate(PROMPTS, GREEDY, range(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_pp": 0.2}, "generation_config: min_pp does not exist"),
        ({"temperature": 0.2}, "temperature is an option of sampling itself"),
        ({"eos_token_id": 4}, "eos_token_id is an option of sampling itself or set by the loop"),
        ({"cache_implementation": "none such"}, "generation_config: "),
        ({"validate": True}, "validate does not exist"),
        ({"num_return_sequences": 2}, "num_return_sequences is an option of sampling itself or set by the loop"),
        ({"min_p": 3.0}, "transformers' generate refuses this sampling: "),
    ],
)
def test_wrong_options_of_transformers_are_refused(tiny_llama, options, message):
    with pytest.raises(InputError, match=message):
        engine(tiny_llama).generate(PROMPTS, Sampling(generation_config=options), range(5))


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0), ("top_p", 0), ("max_new_tokens", 0), ("num_beams", 0), ("top_k", -1)]
)
def test_numbers_outside_their_range_are_refused(field, value):
    with pytest.raises(InputError, match=f"sampling: {field} is {value}; allowed"):
        Sampling(**{field: value})


def test_cudnns_attention_which_plans_for_every_new_length_is_off_while_generating(tiny_llama):
    generator, seen = engine(tiny_llama), []
    generator.model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    was = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        assert generator._in_rows
        seen.clear()
        generator.generate(PROMPTS, GREEDY, range(5))
        assert torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)
    assert seen
    assert not any(seen)
