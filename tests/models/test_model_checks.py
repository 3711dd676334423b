"""Models that are not what they seem are refused before anything is measured."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ARCHITECTURES, CHAT_TEMPLATE, make_model, make_tokenizer
from helpers.command_line import fails
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    BloomConfig,
    LlamaConfig,
    MambaConfig,
    PreTrainedModel,
    RobertaConfig,
    XLNetConfig,
)

from isara_pl.errors import InputError
from isara_pl.growth.prompts import prompt_format
from isara_pl.models.loading import check_tokens, load_causal_lm, load_tokenizer
from isara_pl.models.tokens import encode

FROM_PRETRAINED = PreTrainedModel.from_pretrained.__func__


def edited(folder: Path, edit, architecture: str = "llama") -> str:
    """Make a model whose file of weights holds others."""
    make_model(folder, architecture)
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def without_head(weights):
    del weights["lm_head.weight"]


def packed(weights):
    """As GPTQ and AWQ keep a linear layer."""
    layer = "model.layers.0.mlp.up_proj"
    weights[f"{layer}.qweight"] = weights.pop(f"{layer}.weight").int()
    weights[f"{layer}.scales"] = torch.ones(4)


def of_another_shape(weights):
    weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(768, 1)


def of_one_more_layer(weights):
    weights["model.layers.2.mlp.up_proj.weight"] = torch.zeros(48, 32)


def with_head_bias(weights):
    weights["lm_head.bias"] = torch.zeros(8)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (without_head, "missing lm_head.weight"),
        (packed, "missing model.layers.0.mlp.up_proj.weight; unexpected model.layers.0.mlp.up_proj.qweight, "),
        (of_another_shape, "of another shape model.layers.1.mlp.up_proj.weight"),
        (of_one_more_layer, "unexpected model.layers.2.mlp.up_proj.weight"),
        (with_head_bias, "unexpected lm_head.bias"),
    ],
)
def test_a_checkpoint_that_does_not_load_completely_is_refused_by_the_names_of_its_weights(tmp_path, edit, named):
    folder = edited(tmp_path, edit)
    with pytest.raises(InputError, match=f"model.name: the weights of .*LlamaForCausalLM: {re.escape(named)}") as error:
        load_causal_lm(folder)
    assert "\n" not in str(error.value)


def test_of_many_weights_the_first_are_named_and_all_are_counted(tmp_path):
    def cut(weights):
        for name in [name for name in weights if "layers.1" in name]:
            del weights[name]

    with pytest.raises(InputError, match=r"missing model\.layers\.1\.\S+, \S+, \S+ and 6 more\."):
        load_causal_lm(edited(tmp_path, cut))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "name", ["v_head.summary.weight", "score.weight", "model.visual.weight", "layers.0.attn.masked_bias"]
)
def test_another_head_and_what_old_releases_saved_beside_the_weights_are_no_fault(tmp_path, architecture, name):
    load_causal_lm(edited(tmp_path, lambda weights: weights.update({name: torch.zeros(1)}), architecture))


def test_weights_of_the_base_model_alone_are_enough_where_the_head_is_tied(tmp_path):
    def of_base(weights):
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)

    load_causal_lm(edited(tmp_path, of_base, "gpt2"))


@pytest.mark.parametrize(
    "quantisation",
    [
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        {"quant_method": "awq", "bits": 4, "group_size": 128},
    ],
)
def test_what_a_quantised_folder_says_of_itself_is_heard(tmp_path, quantisation):
    make_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))
    with pytest.raises(
        InputError, match=r"model\.name: no model that loads in the folder under .*\(.*requires?"
    ) as error:
        load_causal_lm(str(tmp_path))
    assert "\n" not in str(error.value)


SMALL = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BART = {"vocab_size": 400, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "decoder_attention_heads": 2}


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SMALL, intermediate_size=48, initializer_range=0.2),
        RobertaConfig(**SMALL, intermediate_size=48, initializer_range=0.2),
        XLNetConfig(vocab_size=400, d_model=32, n_layer=2, n_head=2, d_inner=48, initializer_range=0.2),
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_that_reads_what_comes_later_is_refused(config, tmp_path):
    kind = AutoModelForCausalLM if config.model_type == "xlnet" else AutoModelForMaskedLM
    kind.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"model\.name: .* is no causal model: what \w+ says of a token depends on later ones"
    ):
        load_causal_lm(str(tmp_path))


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SMALL, intermediate_size=48, initializer_range=0.2, is_decoder=True),
        MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=8),
        BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=2),
        BartConfig(**BART),
        LlamaConfig(**SMALL | {"vocab_size": 5}, intermediate_size=48),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_causal_model_is_known_as_one_in_every_type(config, dtype, tmp_path):
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    load_causal_lm(str(tmp_path), dtype)


@pytest.mark.parametrize(
    ("tied", "named"),
    [(True, "missing lm_head.weight, model.decoder.embed_tokens.weight"), (False, "unexpected model.encoder.")],
)
def test_the_decoder_of_a_model_with_an_encoder_is_refused(tmp_path, tied, named):
    config = BartConfig(**BART, tie_word_embeddings=tied)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"not those of BartForCausalLM: .*{named}"):
        load_causal_lm(str(tmp_path))


ROWLESS = "<|no row|>"


def with_added(folder: Path, **tokens) -> str:
    """Make a model whose tokenizer got tokens, and that was not resized."""
    make_model(folder)
    tokenizer = make_tokenizer()
    template = tokens.pop("chat_template", None)
    if template:
        tokenizer.chat_template = template
    tokenizer.add_tokens(tokens.pop("plain", []))
    tokenizer.add_special_tokens(tokens)
    tokenizer.save_pretrained(folder)
    return str(folder)


def started(options, model: str, tmp_path, capsys, *more: str) -> str:
    return fails(["fit", *options, f"--model.name={model}", f"--run_dir={tmp_path / 'run'}", *more], capsys)


@pytest.mark.parametrize(
    "tokens",
    [
        {"pad_token": ROWLESS},
        {"eos_token": ROWLESS},
        {"plain": [ROWLESS]},
        {"extra_special_tokens": [ROWLESS], "chat_template": CHAT_TEMPLATE.replace("<|turn|>", ROWLESS)},
    ],
    ids=["pad", "eos", "plain", "turn"],
)
def test_tokens_without_embeddings_are_named_before_anything_is_measured(tokens, options, tmp_path, capsys):
    model = with_added(tmp_path / "model", **tokens)
    said = started(options, model, tmp_path, capsys, "--data.prompt_format=chat")
    assert "model.name: the model has 400 embeddings, and none for tokens of its tokenizer: <|no row|> (id 400)" in said
    assert not (tmp_path / "run/metrics.csv").exists()


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE.replace("<|turn|>", ROWLESS)])
def test_special_tokens_that_no_prompt_holds_need_no_embedding(template, tiny_llama, tmp_path):
    tokenizer = load_tokenizer(
        with_added(tmp_path / "model", extra_special_tokens=[ROWLESS], chat_template=template), option="data.tokenizer"
    )
    said = prompt_format("qa", tokenizer).answer_prompt(f"What is {ROWLESS}?")
    check_tokens(tokenizer, said, rows=400)
    assert max(encode(tokenizer, said)) < 400


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('A system message must come first') }}",
        "{{ messages[0].content.no.such.thing }}",
        "{{ messages[0].content ",
        "{% if messages|length > 2 %}{{ raise_exception('one pair only') }}{% endif %}" + CHAT_TEMPLATE,
    ],
    ids=["refuses", "fails", "is no template", "takes one pair"],
)
def test_a_template_that_raises_is_refused_with_a_way_out(template, options, tmp_path, capsys):
    model = with_added(tmp_path / "model", chat_template=template)
    said = started(options, model, tmp_path, capsys, "--data.prompt_format=chat")
    assert re.search(r"data\.prompt_format: this model's chat template raises .* \(.+\); use qa or safe-rlhf", said)
    assert not (tmp_path / "run").exists()


# -- adapters


@pytest.fixture
def adapter(tiny_llama, tmp_path) -> Path:
    """Give the folder of a LoRA adapter without a tokenizer."""
    get_peft_model(load_causal_lm(tiny_llama), LoraConfig(task_type="CAUSAL_LM")).save_pretrained(tmp_path / "adapter")
    config = tmp_path / "adapter/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": tiny_llama}))
    return tmp_path / "adapter"


@pytest.mark.parametrize("beside", ["nothing", "its tokenizer", "its whole base"])
def test_an_adapter_is_no_model(adapter, tiny_llama, beside):
    if beside == "its tokenizer":
        make_tokenizer().save_pretrained(adapter)
    if beside == "its whole base":
        shutil.copytree(tiny_llama, adapter, dirs_exist_ok=True)
    for load in (load_tokenizer, load_causal_lm):
        with pytest.raises(InputError, match=rf"model\.name: {adapter} is an adapter \(of {tiny_llama}\)"):
            load(str(adapter))


def test_an_adapter_of_the_hub_is_known_when_it_is_loaded(adapter, tiny_llama, monkeypatch):
    monkeypatch.setattr("isara_pl.models.loading.model_source", lambda name, option: str(adapter))
    with pytest.raises(InputError, match=rf"model\.name: of/the-hub is an adapter \(of {tiny_llama}\)"):
        load_causal_lm("of/the-hub")


def test_a_tokenizer_beside_an_adapter_is_one(adapter):
    make_tokenizer().save_pretrained(adapter)
    assert load_tokenizer(str(adapter), option="data.tokenizer").eos_token == "<|end|>"


def test_a_damaged_description_of_an_adapter_is_one_sentence(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"model\.name: no model that loads in the folder"):
        load_causal_lm(str(tmp_path))
