"""`isara-pl serve`: the right command for a run, and a process that is that command."""

import json
import multiprocessing
import os
import shlex
import sys

import pytest
import yaml
from helpers.command_line import fails

from isara_pl.cli.main import main


def configuration(folder, model, /, **groups):
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({"model": {"name": model}, "trainer": {"precision": "32-true"}, **groups}))
    return str(path)


def printed(capsys, *arguments):
    """Give the variables and the options of the command that is printed."""
    main(["serve", *arguments])
    words = shlex.split(capsys.readouterr().out)
    start = next(place for place, word in enumerate(words) if "=" not in word)
    variables = dict(word.split("=", 1) for word in words[:start])
    assert words[start + 1 : start + 3] == ["-m", "vllm.entrypoints.openai.api_server"]
    return variables, " ".join(words[start + 3 :])


def test_the_command_for_a_run_names_its_model_and_what_its_adapter_needs(undisturbed, tiny_llama, capsys):
    variables, options = printed(capsys, str(undisturbed), "--port=8123")
    assert options.startswith(f"--model {tiny_llama} --host 127.0.0.1 --port 8123 --dtype float32 ")
    assert "--enable-lora --max-lora-rank 8 --max-loras 2" in options  # the next that there is after 4
    assert "--max-logprobs" not in options
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert variables["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("groups", "there", "not_there"),
    [
        ({"data": {"outer_epochs": 1}}, "--dtype float32", "lora"),
        ({"model": {"lora": {"r": 17}}}, "--max-lora-rank 32", "--max-logprobs"),
        ({"model": {"objective": "distill"}, "data": {"top_logprobs": 100}}, "--max-logprobs 164", "--trust"),
        ({"trainer": {"precision": "bf16-mixed"}}, "--dtype bfloat16", "float32"),
        ({"model": {"dtype": "float16"}}, "--dtype float16", "float32"),
        ({"model": {"trust_remote_code": True}}, "--trust-remote-code", "--max-logprobs"),
    ],
)
def test_the_flags_follow_from_the_options(groups, there, not_there, tiny_llama, tmp_path, capsys):
    groups["model"] = {"name": tiny_llama, **groups.get("model", {})}
    variables, options = printed(capsys, configuration(tmp_path, tiny_llama, **groups))
    assert there in options
    assert not_there not in options
    assert ("VLLM_ALLOW_RUNTIME_LORA_UPDATING" in variables) == ("--enable-lora" in options)


def serve(words: list[str], said: str) -> None:
    """Be a process of the command line, whose output is a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 1)
    main(["serve", *words])


def test_start_becomes_that_process(tiny_llama, tmp_path, capsys):
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n")
    fake.chmod(0o755)
    config = configuration(tmp_path, tiny_llama)
    variables, options = printed(capsys, config)
    # forked, since a fresh one would import everything anew
    words = [config, "--start", f"--python={fake}"]
    process = multiprocessing.get_context("fork").Process(target=serve, args=(words, str(tmp_path / "said")))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    arguments, environment = json.loads((tmp_path / "said").read_text().splitlines()[-1])
    assert shlex.join(arguments) == f"-m vllm.entrypoints.openai.api_server {options}"
    assert variables.items() <= environment.items()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("nowhere", "serve: 'nowhere' is no folder. Allowed: the folder of a run, or its configuration file"),
        (".", ".: there is no model.name in it"),
        ("rank", "model.lora.r is 1000; allowed with vLLM: at most 512"),
    ],
)
def test_what_cannot_be_served_is_told(what, told, tiny_llama, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if what == "rank":
        what = configuration(tmp_path, tiny_llama, model={"name": tiny_llama, "lora": {"r": 1000}})
    assert told in fails(["serve", what], capsys)


def test_an_interpreter_that_is_none_is_told(tiny_llama, tmp_path, capsys):
    error = fails(["serve", configuration(tmp_path, tiny_llama), "--start", "--python=/nowhere/python"], capsys)
    assert "--python: /nowhere/python cannot be started (No such file or directory)" in error
