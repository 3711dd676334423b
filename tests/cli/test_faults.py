"""What goes wrong in the night: every fault ends with a message and an exit code, and the next start works."""

import json
import resource
import time
from pathlib import Path

import pytest
import torch
from conftest import make_seeds
from helpers.command_line import LISTS, SEEDS_ALONE, UNMEASURED, assert_begins_as, before_call, fails, fit, rows
from lightning.pytorch import Callback

from isara_pl.generation import writing
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.protocol import Completion
from isara_pl.module import IsaraModule

ONE = ("--data.outer_epochs=1", UNMEASURED)


def fit_with_little_space(size: int, run_dir: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Fit where no file may grow beyond a size: a write fails after a part of it, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        error = fails(["fit", *options, UNMEASURED, f"--run_dir={run_dir}", "--trainer.logger=false"], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "To go on: the same command with --ckpt_path last" in error
    return error


def test_a_disk_that_fills_up_while_samples_are_written_loses_nothing(options, tmp_path, undisturbed, capsys):
    # with long lines the pool is larger than all other files of the run's beginning
    seeds = tmp_path / "long.jsonl"
    lines = [{"question": s.question, "answer": s.answer, "category": "c" * 20_000} for s in make_seeds()]
    seeds.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = [*options, f"--data.seeds={seeds}"]
    of_seeds = (fit(tmp_path / "seeds", [*options, *SEEDS_ALONE]) / "pool.jsonl").read_bytes()
    first = (undisturbed / "pool.jsonl").read_bytes().splitlines(keepends=True)[8]
    run_dir = tmp_path / "run"
    in_the_second_sample = len(of_seeds) + len(first) + 50
    error = fit_with_little_space(in_the_second_sample, run_dir, options, capsys)
    assert f"error: {run_dir}/pool.jsonl could not be appended to: File too large" in error
    assert f"safe in {run_dir}: 8 samples and 0 rejected candidates; there is no checkpoint yet" in error
    assert (run_dir / "pool.jsonl").read_bytes() == of_seeds
    assert not (run_dir / "rejected.jsonl").exists() or not (run_dir / "rejected.jsonl").read_bytes()


def test_a_disk_that_fills_up_while_a_checkpoint_is_written_loses_nothing(options, tmp_path, undisturbed, capsys):
    run_dir = tmp_path / "run"
    half = (undisturbed / "checkpoints/last.ckpt").stat().st_size // 2
    error = fit_with_little_space(half, run_dir, options, capsys)
    assert f"error: {run_dir}/checkpoints/epoch=0.ckpt could not be written: " in error
    assert "there is no checkpoint yet" in error
    assert not list(run_dir.rglob("*.ckpt"))
    assert_begins_as(run_dir, undisturbed)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder that not even root can write into: Linux")
def test_a_folder_that_cannot_be_written_into_is_told_before_anything_is_measured(options, capsys):
    error = fails(["fit", *options, "--run_dir=/sys/kernel/run"], capsys)
    assert "error: nothing can be written into /sys/kernel/run: " in error
    assert "Choose a folder of your own with --run_dir" in error


def test_a_run_folder_that_is_a_file_is_told(options, tmp_path, capsys):
    (tmp_path / "run").write_text("mine")
    assert f"nothing can be written into {tmp_path / 'run'}" in fails(
        ["fit", *options, f"--run_dir={tmp_path / 'run'}"], capsys
    )
    assert (tmp_path / "run").read_text() == "mine"


def ask_for_too_much() -> None:
    torch.empty(2**60)


def test_a_lack_of_memory_in_training_says_what_to_lower(options, tmp_path, capsys, monkeypatch, undisturbed):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        before_call(patch, IsaraModule, "training_step", 6, ask_for_too_much)
        error = fails(["fit", *options, UNMEASURED, f"--run_dir={run_dir}"], capsys)
    assert "error: the memory does not suffice. Where it trained: lower data.batch_size" in error
    assert f"the newest checkpoint is {run_dir}/checkpoints/last.ckpt" in error
    assert_begins_as(run_dir, undisturbed)


def test_a_lack_of_memory_in_generation_is_got_over(options, tmp_path, monkeypatch, undisturbed):
    original, refused = IsaraModule.generate, []

    def generate(self, prompts, sampling, seeds, top=None):
        if not refused and len(prompts) == 4:  # the candidates' questions
            # the first batch of the engine alone meets a device without memory
            assert self._engine._in_rows
            complete = writing.complete

            def too_much(*arguments):
                monkeypatch.setattr(writing, "complete", complete)
                refused.append(arguments)
                raise torch.OutOfMemoryError("CUDA out of memory")

            monkeypatch.setattr(writing, "complete", too_much)
        return original(self, prompts, sampling, seeds)

    monkeypatch.setattr(IsaraModule, "generate", generate)
    with pytest.warns(UserWarning, match="out of memory while generating for 4 prompts"):
        fit(tmp_path / "run", options, *ONE)
    assert_begins_as(tmp_path / "run", undisturbed)


def test_an_engine_that_returns_too_few_completions_is_told(options, tmp_path, capsys, monkeypatch, undisturbed):
    original = GenerationEngine.generate
    with monkeypatch.context() as patch:
        patch.setattr(GenerationEngine, "generate", lambda *given: original(*given)[len(given[1]) == 4 :])
        error = fails(["fit", *options, UNMEASURED, f"--run_dir={tmp_path / 'run'}"], capsys)
    assert "error: IsaraModule.generate gave 3 completions for 4 prompts" in error
    assert_begins_as(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(
    ("text", "taken_by"),
    [("", "Empty 6"), ("Why is the sky like that on day number 0?", "NearDuplicate 6")],
)
def test_a_model_that_says_nothing_new_ends_by_alpha_with_a_message(options, tmp_path, monkeypatch, text, taken_by):
    def always(self, prompts, sampling, seeds, top):
        return [Completion(text, True) for _ in prompts]

    monkeypatch.setattr(GenerationEngine, "generate", always)
    with pytest.warns(UserWarning, match=f"nothing was trained.*rejected by {taken_by}"):
        run_dir = fit(tmp_path / "run", options, "--alpha_stopping.alpha=0.5")
    assert [row["trained_on"] for row in rows(run_dir)] == ["", "0"]


def test_outer_epochs_that_accept_nothing_train_on_the_seeds_where_alpha_is_0(options, tmp_path, monkeypatch):
    monkeypatch.setattr(GenerationEngine, "generate", lambda self, prompts, *_: [Completion("", True) for _ in prompts])
    run_dir = fit(tmp_path / "run", options, "--alpha_stopping.alpha=0")
    assert [(row["accepted"], row["trained_on"]) for row in rows(run_dir)] == [("", ""), ("0", "8"), ("0", "8")]
    assert len((run_dir / "rejected.jsonl").read_text().splitlines()) == 12


def test_a_clock_that_jumps_back_changes_nothing(options, tmp_path, monkeypatch, undisturbed):
    clock = iter(range(10**6, 0, -1000))
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: float(next(clock, 0)))
        run_dir = fit(tmp_path / "run", options, *ONE)
    assert_begins_as(run_dir, undisturbed)
    assert all(float(row["seconds"]) >= 0 for row in rows(run_dir) if row["seconds"])


class Breaks(Callback):
    """A user's own callback with a fault."""

    def on_train_epoch_end(self, trainer, pl_module):
        raise ZeroDivisionError("in a callback")


def test_a_fault_in_a_users_callback_keeps_its_traceback_and_says_what_is_safe(options, tmp_path, capsys, undisturbed):
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "run", options, UNMEASURED, f"--trainer.callbacks+={__name__}.Breaks")
    assert f"safe in {tmp_path / 'run'}: 14 samples" in capsys.readouterr().err
    assert_begins_as(tmp_path / "run", undisturbed)


def test_what_a_damaged_journal_holds_is_named_and_kept(options, cut_run, capsys):
    run_dir = cut_run(2)
    for name in LISTS:
        path = run_dir / name
        whole = path.read_bytes()
        path.write_bytes(b'{"id": 1\n' + whole)
        assert f"{path}:1: damaged line" in fails(["fit", *options, f"--run_dir={run_dir}", "--ckpt_path=last"], capsys)
        assert path.read_bytes() == b'{"id": 1\n' + whole
        path.write_bytes(whole)
