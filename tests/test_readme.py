"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest
from conftest import make_seeds

from isara_pl.cli import main
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.samples import Sample, read_samples

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(word: str) -> str:
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in code]
    return found


@pytest.mark.real
def test_a_plain_lightning_module_runs_the_loop_with_a_stock_trainer(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = block("class MyModule")
    module = code[code.index("class MyModule") : code.index("trainer = Trainer")]
    assert len(module.strip().splitlines()) <= 30
    assert "isara_pl" not in module
    changed = code.replace("HuggingFaceTB/SmolLM2-135M", tiny_llama)
    changed = changed.replace("candidates_per_outer_epoch=64", "candidates_per_outer_epoch=3")
    changed = changed.replace("AlphaStopping(alpha=0.2)", "AlphaStopping(alpha=0.0)")
    assert changed.count(tiny_llama) == changed.count("epoch=3") == changed.count("alpha=0.0") == 1
    names: dict = {}
    exec(changed, names)
    assert names["trainer"].current_epoch == 2
    assert names["trainer"].global_step >= 2 * 64 // 8
    pool = [Sample.from_json(line) for line in Path("runs/my_project/pool.jsonl").read_text().splitlines()]
    assert len(pool) - 64 + len(Path("runs/my_project/rejected.jsonl").read_text().splitlines()) == 6


def test_the_filter_of_ten_lines_filters():
    code = block("class NoDigits")
    assert len(code[code.index("class NoDigits") :].strip().splitlines()) <= 10
    names: dict = {}
    exec(code, names)
    pool = SamplePool(make_seeds())
    verdict = names["NoDigits"](most=1).verdict
    assert verdict(Sample("1-00000", "Is 7 a number?", "Yes."), pool).reason is None
    assert verdict(Sample("1-00000", "Is 77 a number?", "Yes."), pool).reason == "digits in the question"


def test_every_file_that_the_readme_names_exists():
    paths = re.findall(r"(?<![\w/])((?:configs|scripts)/[\w/.]+\.(?:yaml|py))", README)
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).is_file(), path


def test_every_option_that_readme_and_reliability_name_exists(capsys):
    known = set()
    for subcommand in ("fit", "compare"):
        with pytest.raises(SystemExit):
            main([subcommand, "--help"])
        known |= set(re.findall(r"--([\w.]+)", capsys.readouterr().out))
    text = README + (ROOT / "docs/RELIABILITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`?--([a-z_]+(?:\.[a-z_]+)*)", text)) - {"no"}  # pip's --no-deps
    assert len(named) > 10
    assert named - known == set()


def test_the_quickstart_data_are_whole():
    seeds = read_samples(ROOT / "isara_pl/quickstart/seeds.jsonl")
    held_out = read_samples(ROOT / "isara_pl/quickstart/held_out.jsonl")
    assert (len(seeds), len(held_out)) == (64, 100)
    for item in seeds + held_out:
        assert item.correct_answers[0] == item.answer
        assert item.incorrect_answers
        assert not set(item.correct_answers) & set(item.incorrect_answers)
    assert len({item.question for item in seeds + held_out}) == 164
    assert not {item.answer for item in seeds} & {text for item in held_out for text in item.correct_answers}
