import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import make_seeds, write_held_out, write_options, write_seeds
from helpers.command_line import SEEDS_ALONE, UNMEASURED, before_call, fails, fit
from lightning.pytorch import Callback

from isara_pl.cli.main import main
from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.models.sources import content_of
from isara_pl.module import IsaraModule
from isara_pl.run.conditions import check_conditions, described, files_of, read_conditions


class Words:
    def __init__(self, words: list[str], path: Path = Path("a/b"), most: int = 3, judge: object = None) -> None:
        self.words = words
        self.path = path
        self.most = most
        self.judge = judge
        self.seen = 0


def test_a_filter_is_known_by_its_options_and_not_by_what_it_counts():
    one, other = Words(["a"]), Words(["a"])
    other.seen = 7
    assert described([one]) == described([other])
    assert described([one, Words(["b"], most=4, judge=Words([]))]) == [
        "Words(words=['a'], path='a/b', most=3, judge=None)",
        "Words(words=['b'], path='a/b', most=4, judge=Words)",
    ]


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "[" * 100_000])
def test_conditions_that_are_damaged_are_named(tmp_path, text):
    assert read_conditions(tmp_path) == {}
    (tmp_path / "conditions.json").write_text(text)
    with pytest.raises(InputError, match=r"conditions\.json: damaged"):
        read_conditions(tmp_path)


def stop() -> None:
    raise KeyboardInterrupt


def test_seeds_that_changed_and_were_continued_with_stay_those_of_the_pool(options, tmp_path, cut_run, capsys):
    run_dir = cut_run(2)
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "Why?", "answer": "So."}\n')
    changed = f"--data.seeds={other}"
    with pytest.warns(UserWarning, match="going on with the 8 seeds of the pool"):
        fit(run_dir, options, UNMEASURED, changed, "--ckpt_path=last", "--data.on_change=continue")
    main(["validate", *options, changed, f"--run_dir={run_dir}", "--ckpt_path=last", "--data.on_change=continue"])
    # the seeds of the pool go on being those of the run
    fit(run_dir, options, "--ckpt_path=last")
    assert 'then, "1 pairs' in fails(["fit", *options, changed, f"--run_dir={run_dir}", "--ckpt_path=last"], capsys)
    pool = (run_dir / "pool.jsonl").read_text()
    assert all(seed.question in pool for seed in make_seeds())
    assert "Why?" not in pool


# -- the same model at another place


def spelled(way: str, folder: str, tmp_path: Path) -> str:
    """Give another name of a folder."""
    if way == "relative":
        return os.path.relpath(folder)
    other = tmp_path / "elsewhere"
    if way == "link":
        other.symlink_to(folder)
    else:
        shutil.copytree(folder, other)
        (other / "README.md").write_text("a note")
    return str(other)


def test_a_resume_may_name_the_same_model_and_encoder_otherwise(
    options, tmp_path, cut_run, tiny_llama, tiny_encoder, undisturbed
):
    def named(*ways):
        return [
            f"--{option}={spelled(way, folder, make(tmp_path / f'{way} {option}'))}"
            for way, folder, option in zip(
                ways, (tiny_llama, tiny_encoder), ("model.name", "data.encoder"), strict=True
            )
        ]

    run_dir = cut_run(3)
    fit(run_dir, options, UNMEASURED, *named("copy", "link"), "--ckpt_path=last")
    for name in ("pool.jsonl", "rejected.jsonl", "adapter/adapter_model.safetensors"):
        assert (run_dir / name).read_bytes() == (undisturbed / name).read_bytes()
    fit(run_dir, options, *named("relative", "relative"), "--ckpt_path=last")  # and back again


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_place_is_known_by_what_lies_there_and_by_its_name_where_that_is_not_known(tmp_path):
    here, there = {"model.name": "a", "content of model.name": "1"}, {"model.name": "b", "content of model.name": "1"}
    check_conditions(tmp_path, here, "refuse")
    check_conditions(tmp_path, there, "refuse")
    assert read_conditions(tmp_path) == there
    for other in ({**here, "content of model.name": "2"}, {"model.name": "hub/id"}):
        with pytest.raises(InputError, match=r'model\.name: "b" then, "(a|hub/id)" now'):
            check_conditions(tmp_path, other, "refuse")
    with pytest.warns(UserWarning, match="going on under changed conditions"):
        check_conditions(tmp_path, {"model.name": "hub/id"}, "continue")
    with pytest.raises(InputError, match="hub/id"):  # what lay at the place of before says nothing of it
        check_conditions(tmp_path, here, "refuse")
    (tmp_path / "conditions.json").write_text('{"model.name": "a"}')  # of an earlier version
    check_conditions(tmp_path, here, "refuse")


def test_the_content_of_a_model_is_that_of_its_files(tiny_llama, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_llama, copy)
    before = content_of(tiny_llama)
    assert content_of(str(copy)) == before
    assert content_of("some/model") is None
    assert content_of(str(tmp_path / "nothing")) is None
    for name in ("model.safetensors", "tokenizer.json"):
        file = copy / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        whole = file.read_bytes()
        file.write_bytes(content)
        assert content_of(str(copy)) != before, name
        file.write_bytes(whole)
    assert content_of(str(copy)) == before


# -- a run at another place


@pytest.fixture
def moved(undisturbed, tmp_path) -> Path:
    """Give the folder of a run whose config.yaml names another one, where another run is."""
    there, here = shutil.copytree(undisturbed, tmp_path / "there"), tmp_path / "here"
    config = yaml.safe_load((there / "config.yaml").read_text())
    (there / "config.yaml").write_text(yaml.safe_dump({**config, "run_dir": str(there)}))
    shutil.copytree(there, here)
    (tmp_path / "questions.jsonl").write_text('{"question": "Why?"}\n')
    return here


def test_the_config_of_a_run_means_the_run_that_it_lies_in(moved, tmp_path, capsys, monkeypatch):
    there = tmp_path / "there"
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    monkeypatch.chdir(moved)
    main(["predict", "--config=config.yaml", "--ckpt_path=last", f"--data.questions={tmp_path / 'questions.jsonl'}"])
    assert (moved / "predictions.jsonl").exists()
    main(["fit", f"--config={moved / 'config.yaml'}", "--ckpt_path=last"])
    assert str(moved) in (moved / "config.yaml").read_text()
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before


def test_it_does_so_where_the_run_that_it_names_is_gone(moved, tmp_path):
    shutil.rmtree(tmp_path / "there")
    (moved / "report.html").unlink()
    main(["validate", f"--config={moved / 'config.yaml'}", "--ckpt_path=last"])
    assert (moved / "report.html").exists()
    assert not (tmp_path / "there").exists()


def test_a_run_folder_that_was_given_stays_and_so_does_that_of_a_new_run(moved, tmp_path, capsys):
    config = f"--config={moved / 'config.yaml'}"
    questions = f"--data.questions={tmp_path / 'questions.jsonl'}"
    main(["predict", config, f"--run_dir={tmp_path / 'there'}", "--ckpt_path=last", questions])
    shutil.copy(moved / "config.yaml", tmp_path / "my.yaml")
    main(["predict", f"--config={tmp_path / 'my.yaml'}", "--ckpt_path=last", questions])
    assert not (moved / "predictions.jsonl").exists()
    assert f"{tmp_path / 'there'} holds a run already" in fails(["fit", config], capsys)


@pytest.mark.slow
def test_what_was_given_from_one_folder_is_found_from_every_other(
    tiny_llama, tiny_encoder, undisturbed, tmp_path, monkeypatch
):
    at = make(tmp_path / "at")
    for name, folder in (("model", tiny_llama), ("encoder", tiny_encoder)):
        (at / name).symlink_to(folder)
    write_seeds(at)
    shutil.copy(write_held_out(at), at / "items.jsonl")
    baseline = shutil.copytree(undisturbed, at / "baseline")
    options = write_options(at, "model", "./encoder", "seeds.jsonl", "held_out.jsonl")
    config = yaml.safe_load((at / "run.yaml").read_text())
    config["trainer"]["callbacks"][1]["init_args"] = {"items": "items.jsonl"}
    (at / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(at)
    fit(Path("run"), ["--config=run.yaml"], "--data.outer_epochs=1", "--report.baselines=[sft=baseline]")
    saved = (at / "run/config.yaml").read_text()
    for name in ("model", "encoder", "seeds.jsonl", "held_out.jsonl", "items.jsonl", "run"):
        assert f": {at / name}\n" in saved
    assert f"- sft={baseline}\n" in saved

    monkeypatch.chdir(make(tmp_path / "elsewhere"))
    run_dir = (at / "run").rename(tmp_path / "kept")
    main(["report", str(run_dir), f"--to={tmp_path / 'report.html'}"])
    assert "embedded by the sentence encoder" in (tmp_path / "report.html").read_text()
    (tmp_path / "questions.jsonl").write_text('{"question": "Why?"}\n')
    options = [f"--config={run_dir / 'config.yaml'}", "--ckpt_path=last"]
    main(["predict", *options, f"--data.questions={tmp_path / 'questions.jsonl'}"])
    main(["validate", *options])
    main(["fit", *options, "--data.outer_epochs=2"])
    assert (run_dir / "pool.jsonl").read_bytes() == (undisturbed / "pool.jsonl").read_bytes()
    main(["export", str(run_dir), f"--to={tmp_path / 'export'}"])
    assert not [*Path().iterdir()]
    assert not (at / "run").exists()


@pytest.fixture
def seeds_alone(options) -> list[str]:
    return [*options, *SEEDS_ALONE]


@pytest.mark.slow
def test_training_on_seeds_alone_is_held_to_its_conditions(seeds_alone, tmp_path, capsys):
    run_dir = fit(tmp_path / "run", seeds_alone)
    before = (run_dir / "conditions.json").read_bytes()
    for changed, shown in (
        ("--model.learning_rate=0.5", "model.learning_rate: 0.01 then, 0.5 now"),
        ("--data.batch_size=2", "data.batch_size: 4 then, 2 now"),
        ("--data.prompt_format=safe-rlhf", 'data.prompt_format: "qa" then, "safe-rlhf" now'),
        ("--model.lora.r=2", '"r": 2'),
    ):
        error = fails(["fit", *seeds_alone, f"--run_dir={run_dir}", changed, "--ckpt_path=last"], capsys)
        assert "under other conditions" in error
        assert shown in error
        assert (run_dir / "conditions.json").read_bytes() == before
    fit(run_dir, seeds_alone, "--ckpt_path=last")  # as it was


def test_the_conditions_of_a_start_without_a_checkpoint_are_forgotten(seeds_alone, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        before_call(patch, IsaraModule, "training_step", 1, stop)
        with pytest.raises(SystemExit):
            fit(run_dir, seeds_alone)
    assert not list(run_dir.rglob("*.ckpt"))
    fit(run_dir, seeds_alone, "--model.learning_rate=0.5", "--ckpt_path=last")
    assert read_conditions(run_dir)["model.learning_rate"] == 0.5


def test_seeds_alone_that_changed_and_were_continued_with_stay_those_of_the_run(seeds_alone, tmp_path):
    run_dir = fit(tmp_path / "run", seeds_alone)
    pool = (run_dir / "pool.jsonl").read_bytes()
    (tmp_path / "other.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    changed = (f"--data.seeds={tmp_path / 'other.jsonl'}", "--data.on_change=continue")
    with pytest.warns(UserWarning, match="going on with the 8 seeds of the pool"):
        fit(run_dir, seeds_alone, *changed, "--ckpt_path=last")
    assert (run_dir / "pool.jsonl").read_bytes() == pool


# -- what is read when a run starts, and may have changed at its place


def test_files_that_changed_at_their_place_are_noticed(seeds_alone, tmp_path, capsys, tiny_llama, tiny_encoder):
    places = {
        name: shutil.copytree(folder, tmp_path / name)
        for name, folder in (("model.name", tiny_llama), ("data.encoder", tiny_encoder))
    }
    more = [*seeds_alone, *(f"--{name}={place}" for name, place in places.items())]
    run_dir = fit(places["model.name"] / "run", more)  # what a run writes into the model's folder is not the model
    fit(run_dir, more, "--ckpt_path=last")
    again = ["fit", *more, f"--run_dir={run_dir}", "--ckpt_path=last"]
    for option, file in (
        ("model.name", "chat_template.jinja"),
        ("model.name", "generation_config.json"),
        ("model.name", "tokenizer.json"),
        ("data.encoder", "modules.json"),
    ):
        before = (run_dir / "conditions.json").read_bytes()
        whole = (places[option] / file).read_bytes()
        (places[option] / file).write_bytes(whole + b"\n")
        assert f'{option}: "{places[option]}" with other files now' in fails(again, capsys), file
        assert (run_dir / "conditions.json").read_bytes() == before
        (places[option] / file).write_bytes(whole)
    (places[option] / file).write_bytes(whole + b"\n")
    with pytest.warns(UserWarning, match="going on under changed conditions"):
        main([*again, "--data.on_change=continue"])
    main(again)


def test_files_that_options_of_filters_name_are_known_by_their_content(tmp_path):
    path, other = tmp_path / "words.txt", tmp_path / "more.txt"
    path.write_text("a")
    other.write_text("b")
    every = [Words([str(other), "no file", "x" * 5000], path), Words(["\0"], tmp_path / "none", judge=3)]
    before = files_of(every)
    assert before.keys() == {str(path), str(other)}
    assert files_of([Words(["a"], str(path))]) == {str(path): before[str(path)]}
    other.write_text("c")
    assert {name for name, content in files_of(every).items() if content != before[name]} == {str(other)}


class Listed(Callback):
    """Rejects nothing, by a list of words."""

    def __init__(self, words: str) -> None:
        self.words = words

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        return Verdict(0.0)


def test_a_filters_file_that_changed_is_noticed(seeds_alone, tmp_path, capsys):
    path = tmp_path / "words.txt"
    path.write_text("a")
    more = [*seeds_alone, f"--trainer.callbacks+={__name__}.Listed", f"--trainer.callbacks.words={path}"]
    run_dir = fit(tmp_path / "run", more)
    path.write_text("b")
    assert "files of filters: " in fails(["fit", *more, f"--run_dir={run_dir}", "--ckpt_path=last"], capsys)


@pytest.mark.parametrize("reject", [True, False])
def test_evaluation_items_are_a_condition_where_the_guard_rejects_by_them(
    reject, seeds_alone, held_out_file, tmp_path, capsys
):
    guard = [
        f"--data.held_out={held_out_file}",
        "--trainer.callbacks+=ContaminationGuard",
        f"--trainer.callbacks.reject={str(reject).lower()}",
    ]
    run_dir = fit(tmp_path / "run", seeds_alone, *guard)
    items = Path(held_out_file)
    items.write_text(items.read_text().replace("no colour at all", "a colour of its own"))
    again = ["fit", *seeds_alone, *guard, f"--run_dir={run_dir}", "--ckpt_path=last"]
    if reject:
        assert 'items of ContaminationGuard: "3 evaluation items with the hash' in fails(again, capsys)
    else:
        main(again)
