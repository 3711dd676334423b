import pytest
import torch
from conftest import ARCHITECTURES, FUSED_EXPERTS
from helpers.command_line import fit
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from isara_pl.cli.main import main
from isara_pl.errors import InputError
from isara_pl.generation.protocol import Sampling
from isara_pl.models.adapter import LoraOptions, MergedWeights, can_merge
from isara_pl.module import IsaraModule

PROMPTS = ["Question: Why so?\nAnswer:", "Question: Who is it?\nAnswer:"]
GREEDY = Sampling(do_sample=False, max_new_tokens=8)
IDS = torch.tensor([[5, 9, 20, 7]])


def trained_module(folder: str, **options) -> IsaraModule:
    """Give a module whose adapter does something."""
    module = IsaraModule(folder, **options)
    module.configure_model()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return module.eval()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *FUSED_EXPERTS])
def test_merged_weights_compute_what_base_and_adapter_do_and_the_base_comes_back(tiny, architecture):
    module = trained_module(tiny(architecture))
    before = {name: value.clone() for name, value in module.adapted.named_parameters()}
    with torch.no_grad():
        adapted = module.adapted(input_ids=IDS).logits
        with module.pretrained():
            base = module.adapted(input_ids=IDS).logits
        with module.merged():
            assert torch.allclose(module.adapted(input_ids=IDS).logits, adapted, atol=1e-4)
            with module.pretrained():
                assert torch.equal(module.adapted(input_ids=IDS).logits, base)
            assert torch.allclose(module.adapted(input_ids=IDS).logits, adapted, atol=1e-4)
        assert not torch.allclose(adapted, base, atol=0.1)
        assert torch.equal(module.adapted(input_ids=IDS).logits, adapted)
    for name, value in module.adapted.named_parameters():
        assert torch.equal(value, before[name])
        assert value.requires_grad == ("lora_" in name)


def test_a_hundred_merges_leave_a_16_bit_base_as_it_was(tiny_llama):
    module = trained_module(tiny_llama, dtype="bfloat16")
    before = {name: value.clone() for name, value in module.adapted.named_parameters()}
    for _ in range(100):
        with module.merged():
            pass
    assert all(torch.equal(value, before[name]) for name, value in module.adapted.named_parameters())


def test_the_update_is_rounded_once(tiny_llama):
    module = trained_module(tiny_llama, dtype="bfloat16")
    layer = module.adapted.base_model.model.model.layers[0].mlp.up_proj
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 2.0  # alpha / r
    expected = (layer.base_layer.weight.float() + update).bfloat16()
    with torch.autocast("cpu", torch.bfloat16), MergedWeights(module.adapted).in_use():
        torch.testing.assert_close(layer.base_layer.weight.data, expected, rtol=0, atol=0)


def test_an_error_inside_gives_the_base_back(tiny_llama):
    module = trained_module(tiny_llama)
    expected = module.adapted(input_ids=IDS).logits
    with pytest.raises(KeyError), module.merged():
        raise KeyError
    assert torch.equal(module.adapted(input_ids=IDS).logits, expected)


def test_a_weight_that_two_layers_share_is_not_merged(tiny):
    module = trained_module(tiny("gpt2"), lora=LoraOptions(targets=["lm_head"]))  # tied to the embedding
    assert not can_merge(module.adapted)
    expected = module.adapted(input_ids=IDS).logits
    with module.merged():
        assert torch.equal(module.adapted(input_ids=IDS).logits, expected)


def test_where_memory_does_not_hold_both_the_adapter_stays_apart(tiny_llama, monkeypatch):
    module = trained_module(tiny_llama)
    expected = module.generate(PROMPTS, GREEDY, [0, 0])

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("isara_pl.models.adapter._merged", no_memory)
    with pytest.warns(UserWarning, match="memory does not hold a copy of the weights"):
        assert module.generate(PROMPTS, GREEDY, [0, 0]) == expected


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_a_float32_base_generates_under_autocast_too(tiny_llama, precision):
    module = trained_module(tiny_llama)
    with torch.autocast("cpu", precision):
        completions = module.generate(PROMPTS, GREEDY, [0, 0])
    assert all(completion.text for completion in completions)
    assert module.adapted.dtype == torch.float32


def test_answers_are_generated_while_weights_are_widened_for_measuring(tiny_llama):
    module = trained_module(tiny_llama, dtype="bfloat16")
    before = {name: value.clone() for name, value in module.adapted.named_parameters()}
    wide = trained_module(tiny_llama, dtype="bfloat16")
    wide.adapted.float()
    module.on_validation_epoch_start()
    with torch.inference_mode():
        answers = module.generate(PROMPTS, GREEDY, [0, 0])
    module.on_validation_epoch_end()
    assert answers == wide.generate(PROMPTS, GREEDY, [0, 0])
    assert all(torch.equal(value, before[name]) for name, value in module.adapted.named_parameters())


def test_generation_uses_the_adapter_merged_or_not(tiny_llama):
    module = trained_module(tiny_llama)
    with module.merged():
        inside = module.generate(PROMPTS, GREEDY, [0, 0])
    fresh = IsaraModule(tiny_llama)
    fresh.configure_model()
    with module.pretrained():
        assert module.generate(PROMPTS, GREEDY, [0, 0]) == fresh.generate(PROMPTS, GREEDY, [0, 0])
    assert module.generate(PROMPTS, GREEDY, [0, 0]) == inside != fresh.generate(PROMPTS, GREEDY, [0, 0])


def test_a_run_keeps_freed_memory_and_folds_the_adapter_in_once_a_growth(run, monkeypatch):
    asked, merged = [], []
    own = MergedWeights
    monkeypatch.setattr("isara_pl.cli.lightning.keep_freed_memory", lambda: asked.append(1))
    monkeypatch.setattr("isara_pl.models.adapter.MergedWeights", lambda model: merged.append(1) or own(model))
    run(
        "fit",
        [("TruthfulnessEvaluation", {"max_new_tokens": 5})],
        "--data.candidates_per_batch=1",
        "--data.outer_epochs=1",
    )
    assert asked == [1]
    assert len(merged) == 1 + 2 + 2, "once a growth, and once each for the two kinds of answers of each validation"


class Packed(torch.nn.Linear):
    """Stands in for a layer that a quantiser packed: it keeps no `weight`."""

    def __getattr__(self, name):
        if name == "weight":
            raise AttributeError(name)
        return super().__getattr__(name)


def test_layers_without_a_weight_are_not_merged(tiny_llama):
    module = trained_module(tiny_llama)
    module.adapted.base_model.model.model.layers[0].mlp.up_proj.base_layer.__class__ = Packed
    assert not can_merge(module.adapted)


@pytest.mark.parametrize("architecture", FUSED_EXPERTS)
def test_experts_in_one_weight_get_an_adapter_that_is_trained_kept_and_exported(architecture, tiny, options, tmp_path):
    short = ["--data.outer_epochs=1", "--data.held_out=null", "--data.candidates_per_outer_epoch=2"]
    run = fit(tmp_path / "run", options, f"--model.name={tiny(architecture)}", *short)
    trained = load_file(run / "adapter/adapter_model.safetensors")
    assert any("experts" in name and "lora_B" in name and weight.any() for name, weight in trained.items())
    main(["export", str(run), f"--to={tmp_path / 'export'}"])
    base = AutoModelForCausalLM.from_pretrained(tiny(architecture))
    adapted = PeftModel.from_pretrained(base, run / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "export/model").eval()
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=IDS).logits, adapted(input_ids=IDS).logits, atol=1e-4)
        with adapted.disable_adapter():
            assert not torch.allclose(merged(input_ids=IDS).logits, adapted(input_ids=IDS).logits, atol=1e-4)


def test_options_that_do_not_fit_experts_in_one_weight_are_one_sentence(tiny):
    with pytest.raises(InputError, match=r"model\.lora: an adapter with these options does not fit .*dropout"):
        trained_module(tiny("mixtral"), lora=LoraOptions(dropout=0.1))
    with pytest.raises(InputError, match=r"model\.lora: .*Target modules"):
        trained_module(tiny("llama"), lora=LoraOptions(targets=["no_such_layer"]))
