"""What is told before torch is imported."""

import json
import subprocess
import sys

import pytest
from huggingface_hub import constants

from isara_pl.cli import help
from isara_pl.cli.errors import UsageError
from isara_pl.cli.first_look import first_look, help_name, remember, remembered
from isara_pl.cli.main import main
from isara_pl.errors import InputError

KNOWN = [
    "--config",
    "--run_dir",
    "--model",
    "--model.lora",
    "--model.lora.alpha",
    "--trainer.logger",
    "--trainer.logger.help",
]
ALONE = (
    "import sys; from isara_pl.cli.main import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def alone(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", ALONE, *words], capture_output=True, text=True, check=False)


def test_names_are_held_against_those_of_the_parser_where_they_are_known(tmp_path):
    first_look(["fit", "--no_such", "1"])  # nothing is known: the parser will tell
    remember("options-fit", json.dumps([*KNOWN, "model.objective"]))
    for word in ("--run_dir=x", "--trainer.logger.offline", "--trainer.logger+=x", "--model.objective", "--model.lora"):
        first_look(["fit", word, "1"])
    for word, hint in (("--model.lora.alpa", " Did you mean --model.lora.alpha?"), ("--no_such", "")):
        with pytest.raises(UsageError, match=rf"^no option is named {word}\.{hint}".replace("?", r"\?")):
            first_look(["fit", f"{word}=1"])
    remember("options-fit", json.dumps([*KNOWN, "--data.seeds", "_number(seed_everything) --> data.seed"]))
    with pytest.raises(
        UsageError, match=r"--data\.seed cannot be .* from --seed_everything. Did you mean --data\.seeds"
    ):
        first_look(["fit", "--data.seed=mine.csv"])
    file = tmp_path / "run.yaml"
    file.write_text("run_dir: x\nmodel:\n  lora:\n    alpa: 3\n")
    with pytest.raises(UsageError, match=rf"^{file}:4: no option is named model\.lora\.alpa\. Did you mean"):
        first_look(["fit", "--config", str(file)])


def test_files_are_read_as_the_run_reads_them(tmp_path, seeds_file):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "Why?", "answer": ""}\n')
    config = tmp_path / "run.yaml"
    config.write_text(f"data:\n  seeds: {bad}\n")
    for words in (["--config", str(config)], [f"--data.held_out={bad}"], ["--data.held_out", str(bad)]):
        with pytest.raises(InputError, match=f"{bad}:1: the field `answer` is empty"):
            first_look(["fit", *words])
    first_look(["fit", "--config", str(config), f"--data.seeds={seeds_file}"])  # the last one decides
    first_look(["fit", f"--data.seeds={bad}", "--data.columns=answer=question"])  # the run knows how
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(UsageError, match="not plain YAML"):
        first_look(["fit", "--config", str(broken)])
    first_look(["fit", "--config={run_dir: x}"])  # content in place of a file
    with pytest.raises(
        UsageError, match=rf"^--config {tmp_path}/rum.yaml: file does not exist. Did you mean .*run.yaml"
    ):
        first_look(["fit", f"--config={tmp_path}/rum.yaml"])


def test_a_model_that_is_nowhere_is_told_where_no_hub_can_be_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = tmp_path / "run.yaml"
    config.write_text("model:\n  name: nobody/typo\n")
    for words in ([f"--config={config}"], ["--data.encoder", "nobody/typo"]):
        with pytest.raises(
            InputError, match=r"(model.name|data.encoder): this machine has no model 'nobody/typo', and HF_"
        ):
            first_look(["fit", *words])
    (tmp_path / "models--nobody--typo").mkdir()
    for words in ([f"--config={config}"], ["--model.name=."], ["--model.name", "package://no/model"]):
        first_look(["fit", *words])


def test_what_is_wrong_is_told_without_torch(tmp_path):
    ended = alone("fit", f"--data.seeds={tmp_path / 'no.csv'}")
    assert ended.stdout == "False\n"
    assert "error: data.seeds: no such file or folder" in ended.stderr


def test_help_that_was_shown_is_shown_again_without_torch():
    remember(help_name("fit"), "as it was\n")
    for words in (("fit", "--help"), ("help", "fit")):
        assert alone(*words).stdout == "as it was\nFalse\n"


def test_nothing_is_remembered_where_nothing_can_be_written(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    remember("options-fit", "[]")
    assert remembered("options-fit") is None


def test_version_and_help_are_subcommands(capsys):
    main(["version"])
    assert capsys.readouterr().out == f"{help.version_line()}\n"
    main(["help"])
    shown = capsys.readouterr().out
    assert shown == f"{help.overview()}\n"
    assert {"version", "help"} <= {line.split()[0] for line in shown.splitlines() if line.startswith("  ")}
