import pytest
import torch
from conftest import hold_at_most, make_model
from transformers import AutoModelForCausalLM, LlamaConfig

from isara_pl.generation import engine
from isara_pl.generation.engine import ON_A_CPU, Budget, GenerationEngine, budget_of
from isara_pl.generation.protocol import Sampling
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.module import IsaraModule

GIB = 2**30
SAMPLING = Sampling(do_sample=False, max_new_tokens=4)


def test_on_a_cpu_the_budget_does_not_depend_on_the_memory(tiny_llama):
    assert budget_of(load_causal_lm(tiny_llama), "auto") == Budget(ON_A_CPU)
    assert budget_of(load_causal_lm(tiny_llama), 77) == Budget(77)


@pytest.mark.parametrize("heads", [32, 8], ids=["all heads", "grouped"])
def test_on_a_gpu_a_full_batch_of_a_7b_shape_fits_the_free_memory(monkeypatch, heads):
    config = LlamaConfig(
        hidden_size=4096, num_attention_heads=32, num_key_value_heads=heads, num_hidden_layers=32,
        intermediate_size=11008, vocab_size=32000,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    for free in (40 * GIB, 24 * GIB, 4 * GIB):
        monkeypatch.setattr(engine, "_free_bytes", lambda device, free=free: free)
        found = budget_of(model, "auto")
        state = 2 * 32 * heads * 128 * 2  # keys and values of a token: layers, heads, width, bytes
        length = 400
        rows = max(rows for rows in range(1, 4000) if found.admits(rows, length))
        logits = rows * 32000 * (4 + 4 + 4 + 12 + 8 + 8)  # scaled, softmax, sorted with places, float64 and its sums
        repeated = 2 * 32 * 128 * 2 if heads < 32 else 0  # of one layer, for each of its heads
        needed = rows * length * (state + repeated) + logits
        assert needed < 0.9 * free, free
        assert needed > 0.45 * free or free < 5 * GIB, free  # most of it is used


def test_a_little_more_or_less_free_memory_seldom_gives_another_budget(monkeypatch, tiny_llama):
    model = load_causal_lm(tiny_llama)
    found = []
    for free in range(10 * GIB, 20 * GIB, 2**26):  # 160 of them
        monkeypatch.setattr(engine, "_free_bytes", lambda device, free=free: free)
        found.append(budget_of(model, "auto").tokens)
    assert found == sorted(found)
    assert len(set(found)) <= 6


def test_a_row_counts_what_drawing_its_token_takes():
    assert Budget(1000, row=100).admits(5, 100)
    assert not Budget(1000, row=100).admits(6, 100)
    assert Budget(1000, row=100).halved(3, 100) == Budget(300, row=100)
    assert Budget(1000, row=100).halved(300, 100) == Budget(500, row=100)


def test_a_lack_of_memory_while_measuring_does_not_shrink_the_batches_of_growing(tiny_llama, monkeypatch):
    generator = GenerationEngine(load_causal_lm(tiny_llama).eval(), load_tokenizer(tiny_llama), 4096)
    hold_at_most(3, monkeypatch)
    prompts = [f"Question {number}?" for number in range(8)]
    with generator.measuring(), pytest.warns(UserWarning, match=r"generation_tokens \d+ while measuring"):
        generator.generate(prompts, SAMPLING, range(8))
    assert generator.budgets["measuring"].tokens < 100
    assert generator.budget.tokens == 4096


def test_a_run_that_goes_on_keeps_its_budgets_unless_another_one_is_asked_for(tiny_llama, tmp_path):
    def module(tokens=4096):
        made = IsaraModule(tiny_llama, generation_tokens=tokens)
        made.configure_model()
        return made

    first = module()
    first._engine.budgets = {"growing": Budget(512), "measuring": Budget(64, 3)}
    checkpoint = {"state_dict": first.state_dict()}
    first.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    again, other = module(), module(tokens=8192)
    again.on_load_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    assert again._engine.budgets == first._engine.budgets
    assert other._engine.budget == Budget(8192)


def test_a_checkpoint_of_an_earlier_release_has_no_budgets(tiny_llama):
    module = IsaraModule(tiny_llama)
    module.configure_model()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    del checkpoint["generation"]
    module.on_load_checkpoint(checkpoint)
    assert module._engine.budget == Budget(ON_A_CPU)


def test_recurrent_models_without_keys_have_a_budget_of_tokens(monkeypatch):
    from transformers import MambaConfig, MambaForCausalLM

    monkeypatch.setattr(engine, "_free_bytes", lambda device: GIB)
    config = MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1)
    assert budget_of(MambaForCausalLM(config).eval(), "auto") == Budget(ON_A_CPU)


@pytest.mark.parametrize("shared_by", [1, 7])
def test_keys_and_values_that_heads_share_are_repeated_for_one_layer(shared_by):
    config = LlamaConfig(
        vocab_size=50, hidden_size=56, num_hidden_layers=3, num_attention_heads=14,
        num_key_value_heads=14 // shared_by, intermediate_size=16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    of_layer = 2 * (14 // shared_by) * 4 * 4  # keys and values, heads, width, bytes
    repeated = 2 * 14 * 4 * 4 if shared_by > 1 else 0
    assert engine._bytes_of_a_token(model) == 3 * of_layer + repeated


def test_every_architecture_tells_the_size_of_its_keys_and_values(tmp_path, monkeypatch):
    for architecture in ("gpt2", "opt", "llama"):
        model = load_causal_lm(make_model(tmp_path / architecture, architecture)).eval()
        with torch.inference_mode():
            given = model(input_ids=torch.tensor([[5] * 7]), use_cache=True)
        cache = given["cache" if "cache" in given else "past_key_values"]
        whole = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert engine._bytes_of_a_token(model) == whole // 7
