import torch

from isara_pl.models.adapter import LoraOptions, with_adapter
from isara_pl.models.loading import load_causal_lm


def adapter_of(base) -> dict[str, torch.Tensor]:
    model = with_adapter(base, LoraOptions(r=4), "a model", seed=3)
    return {name: weight for name, weight in model.named_parameters() if "lora_" in name}


def test_its_first_weights_follow_from_the_seed_whatever_device_is_the_default(tiny_llama):
    expected = adapter_of(load_causal_lm(tiny_llama))
    base = load_causal_lm(tiny_llama)
    with torch.device("meta"):  # Lightning loads models under the trainer's device
        found = adapter_of(base)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert any(weight.any() for weight in expected.values())


def test_no_generator_of_the_process_is_touched(tiny_llama, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    base = load_causal_lm(tiny_llama)
    before = torch.get_rng_state()
    with_adapter(base, LoraOptions(r=4), "a model", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded


def test_the_whole_adapter_lies_where_its_base_does(tiny_llama):
    base = load_causal_lm(tiny_llama).to("meta")
    assert {weight.device.type for weight in adapter_of(base).values()} == {"meta"}
