import functools
from collections import Counter

import pytest
import torch
from conftest import ARCHITECTURES, make_seeds
from helpers.module import batch_of, data_module, trainer_in
from helpers.training import loaded

from isara_pl.errors import InputError
from isara_pl.generation.protocol import Sampling
from isara_pl.models.adapter import LoraOptions
from isara_pl.module import IsaraModule
from isara_pl.training.pairs import answer_nll
from isara_pl.training.step import SHORT, compile_layers, lean_forward


def loss_and_gradients(module: IsaraModule, lean: bool, compiled: bool = False, autocast: bool = True):
    """One step's loss and all its gradients; bfloat16 autocast is what mixed precision runs in on a CPU."""
    batch = batch_of(module)
    module.adapted.zero_grad()
    torch.manual_seed(0)  # dropout
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
        if lean:
            with lean_forward(module.adapted, batch["input_ids"].shape[1], compiled):
                sums, tokens = answer_nll(module.adapted, batch)
        else:
            sums, tokens = answer_nll(module.adapted, batch)
        loss = sums.sum() / tokens.sum()
    loss.backward()
    trained = [parameter.grad for parameter in module.adapted.parameters() if parameter.requires_grad]
    return loss.detach(), torch.cat([gradient.flatten() for gradient in trained])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_leaving_out_casts_changes_no_bit(tiny, architecture, dtype):
    module = loaded(tiny(architecture), dtype=dtype)
    casts: Counter[torch.dtype] = Counter()
    for part in module.adapted.modules():
        if hasattr(part, "lora_A") and "default" in part.lora_A:
            part.lora_A["default"].register_forward_pre_hook(lambda _, inputs: casts.update([inputs[0].dtype]))
    plain = loss_and_gradients(module, lean=False)
    assert set(casts) == {torch.float32}, "peft casts"
    casts.clear()
    lean = loss_and_gradients(module, lean=True, compiled=True)
    assert casts[torch.bfloat16] > 0
    assert torch.equal(plain[0], lean[0])
    assert torch.equal(plain[1], lean[1])


def test_plain_attention_gives_the_same_loss_and_gradients(tiny_llama):
    module = loaded(tiny_llama, dtype="bfloat16")
    assert batch_of(module)["input_ids"].shape[1] <= SHORT
    exact = loss_and_gradients(loaded(tiny_llama), lean=False, autocast=False)
    plain, lean = loss_and_gradients(module, lean=False), loss_and_gradients(module, lean=True)
    assert not torch.equal(plain[1], lean[1]), "another attention was computed"
    away = [float((gradients - exact[1]).norm() / exact[1].norm()) for _, gradients in (plain, lean)]
    assert away[1] < 1.2 * away[0], "it is at most as far from float32 as torch's own"
    torch.testing.assert_close(lean[0], exact[0], rtol=2e-2, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_autocast_casts_stay(tiny_llama, dtype):
    module = loaded(tiny_llama, dtype=dtype)  # a bfloat16 base and a float32 adapter need them
    plain = loss_and_gradients(module, lean=False, autocast=False)
    lean = loss_and_gradients(module, lean=True, compiled=dtype == "bfloat16", autocast=False)
    assert torch.equal(plain[0], lean[0])
    assert torch.equal(plain[1], lean[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_checkpointing_goes_with_dropout_and_mixed_precision(tiny_llama, seeds_file, tmp_path, dtype):
    lora = LoraOptions(dropout=0.3)
    module = IsaraModule(tiny_llama, lora, dtype=dtype, gradient_checkpointing=True)
    module.configure_model()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer_in(tmp_path, precision="bf16-mixed").fit(module, data_module(tiny_llama, seeds_file))
    assert any(not torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradient_checkpointing_trains_the_same_adapter(tiny_llama, seeds_file, tmp_path, precision):
    states, passes = [], []
    for checkpointing in (False, True):
        module = IsaraModule(tiny_llama, learning_rate=1e-2, dtype="float32", gradient_checkpointing=checkpointing)
        module.configure_model()
        times: list[int] = []
        layer = module.adapted.get_base_model().model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda *_, seen=times: seen.append(1))
        trainer_in(tmp_path, precision=precision).fit(module, data_module(tiny_llama, seeds_file))
        states.append(torch.cat([value.flatten() for value in module.state_dict().values()]))
        passes.append(len(times))
    assert passes[1] == 2 * passes[0], "activations are computed twice"
    # in mixed precision by another attention, and Adam's first steps follow the sign of the smallest gradients
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=1e-6 if precision == "32-true" else 3e-2)
    assert (states[0] - states[1]).abs().mean() < 1e-3


def test_gradients_are_clipped_in_mixed_precision(tiny_llama, seeds_file, tmp_path):
    module = IsaraModule(tiny_llama)
    norms: list[float] = []

    def measured(optimizer):
        gradients = [parameter.grad.flatten() for group in optimizer.param_groups for parameter in group["params"]]
        norms.append(float(torch.cat(gradients).norm()))

    module.on_before_optimizer_step = measured  # before clipping
    options = {"precision": "bf16-mixed", "gradient_clip_val": 1e-6}
    trainer_in(tmp_path, **options).fit(module, data_module(tiny_llama, seeds_file))
    assert norms
    assert not module.optimizers(use_pl_optimizer=False).defaults["fused"]


def compare_compiled(name: str, seeds_file: str, folder) -> None:
    """Train with and without, and look at the adapter, its keys, the graphs and what is generated."""
    modules = []
    for compiled in (False, True):
        module = IsaraModule(name, learning_rate=1e-2, compile=compiled, lora=LoraOptions(r=4))
        trainer_in(folder).fit(module, data_module(name, seeds_file, batch_size=3, epochs_per_outer_epoch=1))
        modules.append(module)
    plain, compiled = (module.state_dict() for module in modules)
    assert plain.keys() == compiled.keys()
    for key, value in plain.items():
        torch.testing.assert_close(value, compiled[key], rtol=0, atol=1e-4)
    modules[0].load_state_dict(compiled)
    prompts = [f"Question: {sample.question}\nAnswer:" for sample in make_seeds(4)]
    greedy = Sampling(do_sample=False, max_new_tokens=8)
    assert modules[0].generate(prompts, greedy, range(4)) == modules[1].generate(prompts, greedy, range(4))


@pytest.mark.slow
def test_compiled_layers_train_the_same_adapter_and_are_not_compiled_for_generation(
    tiny_llama, seeds_file, tmp_path, monkeypatch
):
    torch.compiler.reset()
    graphs: list[int] = []

    def backend(graph, _):
        graphs.append(1)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    compare_compiled(tiny_llama, seeds_file, tmp_path)
    assert 0 < len(graphs) <= 2, "one graph for all layers and lengths (and one for the first layer's input)"
    torch.compiler.reset()


@pytest.mark.slow
def test_layers_compiled_by_inductor_train_the_same_adapter(tiny_llama, seeds_file, tmp_path):
    torch.compiler.reset()
    compare_compiled(tiny_llama, seeds_file, tmp_path)


def test_a_model_of_unknown_layers_is_not_compiled():
    with pytest.raises(InputError, match=r"model\.compile: the layers"):
        compile_layers(torch.nn.Linear(2, 2))
