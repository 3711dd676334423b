import json
from pathlib import Path

import pytest
import torch

from chaos.findings import Findings, after_kill, at_end, complete_lines
from chaos.starts import Kill, Zygote
from chaos.tiny_run import command, prepare
from chaos.trials import FRESH, Trial, fresh_process, undisturbed
from chaos.watch import (
    ADAPTER,
    ANSWERS,
    BEFORE_LAST,
    CHECKPOINT,
    CONDITIONS,
    CONFIG,
    DONE,
    EVALUATION,
    GROWN,
    JUDGING,
    LAST,
    LEDGER,
    LOGS,
    METRICS,
    POOL,
    PRETRAINED,
    QUESTIONS,
    REJECTED,
    REPORT,
    STAGES,
    START,
    TEACHER,
    TRAINING,
    VALIDATION,
)
from isara_pl.cli.main import main

# every stage once, in an order in which one run comes to all of them; the numbers lie in the midst of each
KILLS = (
    Kill(START, 1),
    Kill(PRETRAINED, 5),
    Kill(EVALUATION, 1),
    Kill(METRICS, 2),
    Kill(CONFIG, 1),
    Kill(CONDITIONS, 2),
    Kill(QUESTIONS, 4),
    Kill(ANSWERS, 4),
    Kill(JUDGING, 2),
    Kill(TEACHER, 2),
    Kill(REJECTED, 1),
    Kill(POOL, 1),
    Kill(LEDGER, 2),
    Kill(GROWN, 1),
    Kill(TRAINING, 3),
    Kill(CHECKPOINT, 8),
    Kill(BEFORE_LAST, 2),
    Kill(LAST, 8),
    Kill(VALIDATION, 2),
    Kill(LOGS, 3),
    Kill(ADAPTER, 4),
    Kill(REPORT, 2),
    Kill(DONE, 1),
)
NOTHING = Findings([], lost=0, duplicated=0)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("chaos"))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow  # half a minute of a core; CI runs it
def test_a_run_that_is_killed_at_every_stage_ends_as_an_undisturbed_one(config, tmp_path):
    assert {kill.stage for kill in KILLS} == set(STAGES)
    with Zygote(hash_seed=1) as zygote:
        whole = undisturbed(zygote, config, "steps", tmp_path / "whole")
        trial = Trial(zygote.start, config, "steps", whole.folder, tmp_path / "run")
        for kill in KILLS:
            assert trial.kill(kill).killed, f"the run never came to {kill}"
        assert trial.finish() == NOTHING


@pytest.mark.slow  # `make chaos` kills fresh processes too
@pytest.mark.usefixtures("one_thread")
def test_a_fresh_process_that_is_killed_and_resumed_ends_as_an_undisturbed_run(config, tmp_path):
    whole = tmp_path / "whole"
    main(command(config, "epochs", whole, resume=False))
    trial = Trial(fresh_process, config, "epochs", whole, tmp_path / "run")
    assert trial.kill(Kill(FRESH, 1)).killed
    assert trial.finish() == NOTHING


@pytest.fixture
def finished(tmp_path):
    """Give the folders of two finished runs, without any model."""
    pool = [{"id": "seed-0", "outer_epoch": 0}, {"id": "1-0", "outer_epoch": 1}, {"id": "1-2", "outer_epoch": 1}]
    files = {
        "pool.jsonl": "".join(json.dumps(line) + "\n" for line in pool),
        "rejected.jsonl": '{"id": "1-1", "outer_epoch": 1}\n',
        "metrics.csv": "outer_epoch,mc2,seconds\n0,0.5,1.25\n",
        "adapter/adapter_model.safetensors": "weights",
        "adapter/adapter_config.json": "{}",
        "evaluation/truthfulness.jsonl": "{}\n",
        "teacher/1-0.safetensors": "teaches",
    }
    for run in ("whole", "run"):
        for name, content in files.items():
            (tmp_path / run / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / run / name).write_text(content)
    return tmp_path / "run", tmp_path / "whole"


def change(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_a_clock_measured_and_the_loggers_files_may_differ(finished):
    run_dir, whole = finished
    change(run_dir / "metrics.csv", "1.25", "1.75")
    (run_dir / "logs/version_1").mkdir(parents=True)
    (run_dir / "logs/version_1/metrics.csv").write_text("")
    assert at_end(run_dir, whole) == NOTHING


@pytest.mark.parametrize(
    ("name", "old", "new", "problem", "lost", "duplicated"),
    [
        ("pool.jsonl", '"1-2"', '"1-0"', "pool.jsonl differs", 1, 1),
        ("pool.jsonl", '"1-2"', '"1-1"', "pool.jsonl differs", 1, 1),
        ("rejected.jsonl", '{"id": "1-1", "outer_epoch": 1}\n', "", "rejected.jsonl differs", 1, 0),
        ("pool.jsonl", '{"id": "1-0"', '{"id"{"id": "1-0"', "pool.jsonl differs", 1, 0),
        ("metrics.csv", "0.5", "0.6", "metrics.csv differs", 0, 0),
        ("adapter/adapter_model.safetensors", "weights", "weighty", "adapter/adapter_model.safetensors differs", 0, 0),
        ("teacher/1-0.safetensors", "teaches", "touches", "teacher/1-0.safetensors differs", 0, 0),
    ],
)
def test_what_differs_is_found(finished, name, old, new, problem, lost, duplicated):
    run_dir, whole = finished
    change(run_dir / name, old, new)
    assert at_end(run_dir, whole) == Findings([problem], lost, duplicated)


def test_files_that_are_left_over_or_missing_are_found(finished):
    run_dir, whole = finished
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints/last.ckpt.unfinished").write_text("")
    (run_dir / "adapter/adapter_config.json").unlink()
    assert at_end(run_dir, whole).problems == [
        "adapter/adapter_config.json is missing",
        "checkpoints/last.ckpt.unfinished is left over",
    ]


def test_a_journal_that_says_something_else_or_less_than_before_is_found(finished):
    run_dir, whole = finished
    before = complete_lines(run_dir)
    (run_dir / "pool.jsonl").write_text((whole / "pool.jsonl").read_text() + '{"id": "2-')
    assert after_kill(run_dir, whole, before) == []
    change(run_dir / "pool.jsonl", '{"id": "1-2", "outer_epoch": 1}\n', "")
    assert after_kill(run_dir, whole, before) == ["pool.jsonl has lost candidates that were on disk before"]
    change(run_dir / "rejected.jsonl", "1-1", "1-9")
    assert "rejected.jsonl is not the beginning of the undisturbed run's" in after_kill(run_dir, whole, before)
