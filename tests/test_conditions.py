from pathlib import Path

import pytest
from command_line import before_call, fails, fit
from conftest import make_seeds

from isara_pl.cli import main
from isara_pl.conditions import described, read_conditions
from isara_pl.errors import InputError
from isara_pl.growth.outer_epoch import OuterEpoch
from isara_pl.module import IsaraModule


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


def test_seeds_that_changed_and_were_continued_with_stay_those_of_the_pool(options, tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        before_call(patch, OuterEpoch, "_judge", 2, stop)
        with pytest.raises(SystemExit):
            fit(run_dir, options)
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "Why?", "answer": "So."}\n')
    changed = f"--data.seeds={other}"
    with pytest.warns(UserWarning, match="going on with the 8 seeds of the pool"):
        fit(run_dir, options, changed, "--ckpt_path=last", "--data.on_change=continue")
    main(["validate", *options, changed, f"--run_dir={run_dir}", "--ckpt_path=last", "--data.on_change=continue"])
    # the seeds of the pool go on being those of the run
    fit(run_dir, options, "--ckpt_path=last")
    assert 'then, "1 pairs' in fails(["fit", *options, changed, f"--run_dir={run_dir}", "--ckpt_path=last"], capsys)
    pool = (run_dir / "pool.jsonl").read_text()
    assert all(seed.question in pool for seed in make_seeds())
    assert "Why?" not in pool


SEEDS_ALONE = ["--data.candidates_per_outer_epoch=0", "--data.outer_epochs=1", "--data.epochs_per_outer_epoch=1"]


@pytest.fixture
def seeds_alone(options) -> list[str]:
    return [*options, *SEEDS_ALONE]


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ("--model.learning_rate=0.5", "model.learning_rate: 0.01 then, 0.5 now"),
        ("--data.batch_size=2", "data.batch_size: 4 then, 2 now"),
        ("--data.prompt_format=safe-rlhf", 'data.prompt_format: "qa" then, "safe-rlhf" now'),
        ("--model.lora.r=2", '"r": 2'),
    ],
)
def test_training_on_seeds_alone_is_held_to_its_conditions(seeds_alone, tmp_path, capsys, changed, shown):
    run_dir = fit(tmp_path / "run", seeds_alone)
    before = (run_dir / "conditions.json").read_bytes()
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
