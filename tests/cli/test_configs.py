"""Every file in configs/ runs, with a tiny model in place of its own."""

import csv
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from isara_pl.cli.main import main

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))


def make_classifier(folder: Path, base: str) -> str:
    config = AutoConfig.from_pretrained(base, num_labels=3, problem_type="multi_label_classification")
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_runs(config, tiny_llama, tiny_encoder, seeds_file, held_out_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / config).read_text()
    if "beaver-dam-7b" in text:  # stands in the middle of a list, out of reach of an option
        text = text.replace("PKU-Alignment/beaver-dam-7b", make_classifier(tmp_path / "judge", tiny_llama))
        text = text.replace("discrimination_prompts.jsonl", held_out_file).replace("dtype: bfloat16", "dtype: float32")
    Path("config.yaml").write_text(text)
    subcommand = re.search(r"python -m isara_pl (\w+)", text).group(1)
    main([
        subcommand, "--config=config.yaml", "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu",
        f"--model.name={tiny_llama}", f"--data.encoder={tiny_encoder}", f"--data.seeds={seeds_file}",
        f"--data.held_out={held_out_file}", "--held_out_answers.max_new_tokens=4", "--data.question_sampling.max_new_tokens=4",
        "--data.answer_sampling.max_new_tokens=4",
    ])  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_says_what_it_is_for(config):
    head = (ROOT / config).read_text()
    assert head.startswith("# ")
    assert "python -m isara_pl" in head.split("\nrun_dir:")[0]


def test_the_script_that_the_paper_config_names_makes_the_files_that_it_reads(tmp_path, monkeypatch):
    config = ROOT / "configs/paper/truthfulqa_opt6.7b.yaml"
    command = re.search(r"python (scripts/\S+) (\S+) (.+)", config.read_text())
    monkeypatch.chdir(tmp_path)
    with Path(command[2]).open("w", newline="") as file:
        columns = ("Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source")
        rows = [("x", "x", f"Is {i} a number?", "Yes.", "Yes.; It is.", "No.; Never.", "x") for i in range(4)]
        csv.writer(file).writerows([columns, *rows])
    monkeypatch.setattr(sys, "argv", [command[1], command[2], *command[3].split(), "--seeds", "2"])
    runpy.run_path(str(ROOT / command[1]), run_name="__main__")
    data = yaml.safe_load(config.read_text())["data"]
    assert len(Path(data["seeds"]).read_text().splitlines()) == 2
    assert len(Path(data["held_out"]).read_text().splitlines()) == 2
