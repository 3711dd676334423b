"""Paths that begin with `~`, in places where no shell expands it."""

import shutil
from pathlib import Path

import pytest
import yaml
from command_line import adapter, assert_same, fails, fit
from conftest import write_held_out, write_options, write_seeds

from isara_pl.errors import InputError
from isara_pl.home import expanded
from isara_pl.main import main


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Give a home folder, which is not the current one."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_run_in_the_home_folder_is_one_run_for_every_command(
    home, tiny_llama, tiny_encoder, undisturbed, tmp_path, capsys
):
    for name, folder in (("model", tiny_llama), ("encoder", tiny_encoder)):
        (home / name).symlink_to(folder)
    for file in write_seeds(home), write_held_out(home):
        assert Path(file).parent == home
    options = write_options(home, "~/model", "~/encoder", "~/seeds.jsonl", "~/held_out.jsonl")
    config = yaml.safe_load((home / "run.yaml").read_text())
    (home / "run.yaml").write_text(yaml.safe_dump({**config, "run_dir": "~/runs/x"}))
    options = ["--config=~/run.yaml"]
    main(["fit", *options])
    run_dir = home / "runs/x"
    assert_same(run_dir, undisturbed)
    assert not (tmp_path / "~").exists()

    before = adapter(run_dir)
    assert "holds a run already" in fails(["fit", *options, "--data.outer_epochs=1"], capsys)
    assert adapter(run_dir) == before

    (home / "questions.jsonl").write_text('{"question": "Why?"}\n')
    main(["predict", *options, "--ckpt_path=last", "--data.questions=~/questions.jsonl"])
    main(["predict", *options, "--ckpt_path=~/runs/x/checkpoints/last.ckpt", "--data.questions=~/questions.jsonl"])
    assert (run_dir / "predictions.jsonl").read_text().count("\n") == 1

    fit(run_dir, options, "--ckpt_path=last")  # nothing is measured or trained again
    assert_same(run_dir, undisturbed)


def test_the_commands_that_read_runs_know_the_home_folder(home, undisturbed, tmp_path, capsys):
    shutil.copytree(undisturbed, home / "run")
    main(["report", "~/run", "--to=~/report.html", "--baselines=before=~/run"])
    main(["compare", "one=~/run", "~/run", "--json=~/compared.json"])
    main(["export", "~/run", "--to=~/export"])
    assert {"report.html", "compared.json", "export"} <= {path.name for path in home.iterdir()}
    assert not (tmp_path / "~").exists()


def test_options_that_follow_from_others_are_refused_in_a_config_of_the_home_folder(home, capsys):
    (home / "run.yaml").write_text("trainer: {default_root_dir: runs/x}\n")
    error = fails(["fit", "--config=~/run.yaml", "--model.name=m", "--data.seeds=s"], capsys)
    assert f"{home}/run.yaml:1: --trainer.default_root_dir cannot be given" in error


def test_options_from_python_are_expanded_too(home, capsys):
    with pytest.raises(SystemExit):
        main({"subcommand": "fit", "fit": {"model": {"name": "~/none"}, "data": {"seeds": "s"}}})
    assert "no such file or folder: " + str(home / "none") in capsys.readouterr().err


def test_what_only_looks_like_it_stays(home):
    for text in ("runs/~x", "~nobody-of-this-name/x", "package://module/~/x", "a ~/b"):
        assert expanded(text) == text


def test_without_a_home_folder_no_folder_of_that_name_is_made(tmp_path, monkeypatch, capsys):
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="~/runs/x: there is no home folder here"):
        expanded("~/runs/x")
    assert "HOME is not set" in fails(["validate", "--model.name=m", "--data.seeds=s", "--run_dir=~/x"], capsys)
    assert not [*tmp_path.iterdir()]
