"""Who may write into a run folder, and what a resume must find there."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from helpers.command_line import SEEDS_ALONE, UNMEASURED, assert_begins_as, before_call, fails, fit, rows

from isara_pl.cli.main import main
from isara_pl.errors import InputError
from isara_pl.export.finished_run import at_rest
from isara_pl.module import IsaraModule
from isara_pl.run.checkpoints import WholeCheckpointIO
from isara_pl.run.files import write_whole
from isara_pl.run.folder import RunLock

# -- one run in a folder


def test_a_second_run_in_a_folder_is_refused_and_a_killed_one_leaves_no_lock(options, tmp_path, capsys, monkeypatch):
    run_dir = tmp_path / "run"
    code = (
        "import sys, time; from pathlib import Path; from isara_pl.run.folder import RunLock\n"
        "lock = RunLock(); lock.acquire(Path(sys.argv[1])); print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, run_dir], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "locked\n"
            error = fails(["fit", *options, f"--run_dir={run_dir}"], capsys)
        finally:
            other.kill()
    assert f"another process is writing into {run_dir}" in error
    assert {path.name for path in run_dir.iterdir() if path.is_file()} == {"run.lock"}
    fit(run_dir, [*options, *SEEDS_ALONE])


def fault() -> None:
    raise RuntimeError("a fault of a library")


def test_after_a_failed_fit_the_same_process_can_fit_again(options, tmp_path, monkeypatch):
    options = [*options, *SEEDS_ALONE]
    with monkeypatch.context() as patch:
        before_call(patch, IsaraModule, "training_step", 1, fault)
        with pytest.raises(RuntimeError, match="a fault of a library"):
            fit(tmp_path / "run", options)
    fit(tmp_path / "run", options, "--ckpt_path=last")


# -- changed conditions


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("--data.candidates_per_outer_epoch=5", "data.candidates_per_outer_epoch: 6 then, 5 now"),
        ("--data.demonstrations=3", "data.demonstrations: 2 then, 3 now"),
        ("--data.question_sampling.temperature=0.5", '"temperature": 0.9'),
        ("--model.name=MODEL", "model.name"),
        ("--model.learning_rate=0.02", "model.learning_rate: 0.01 then, 0.02 now"),
        ("--model.lora.r=8", "model.lora"),
        ("--seed_everything=8", "seed_everything: 7 then, 8 now"),
        ("--trainer.callbacks=isara_pl.callbacks.NearDuplicate", ""),
        ("--trainer.callbacks+=isara_pl.callbacks.TooShort", "TooShort(min_words="),
    ],
)
def test_a_resume_under_other_conditions_is_refused_and_shows_what_differs(
    options, cut_run, capsys, tiny, option, shown
):
    run_dir = cut_run(2)
    before = {path: path.read_bytes() for path in run_dir.iterdir() if path.is_file()}
    option = option.replace("MODEL", tiny("qwen2"))
    arguments = ["fit", *options, f"--run_dir={run_dir}", "--ckpt_path=last", option]
    if not shown:  # the same filter, and an evaluation less: that changes nothing of the pool
        main([*arguments, UNMEASURED])
        return
    error = fails(arguments, capsys)
    assert "was grown under other conditions than those of now" in error
    assert shown in error
    assert "--data.on_change continue" in error
    assert {path: path.read_bytes() for path in before} == before


def test_going_on_under_other_conditions_keeps_what_is_there_its_seeds_included(options, tmp_path, cut_run):
    run_dir = cut_run(2)
    began = (run_dir / "pool.jsonl").read_text()
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "Why?", "answer": "So."}\n')
    changed = [f"--data.seeds={other}", "--data.candidates_per_outer_epoch=5", "--data.demonstrations=3"]
    with pytest.warns(UserWarning, match=r"data\.demonstrations: 2 then, 3 now"):
        fit(run_dir, options, UNMEASURED, *changed, "--ckpt_path=last", "--data.on_change=continue")
    assert (run_dir / "pool.jsonl").read_text().startswith(began)
    assert [row["candidates"] for row in rows(run_dir) if row["candidates"]] == ["5", "5"]
    # the changed conditions are those of the run now
    fit(run_dir, options, *changed[1:], f"--data.seeds={other}", "--ckpt_path=last", "--data.on_change=continue")


# -- links


@pytest.mark.parametrize("name", ["pool.jsonl", "metrics.csv", "adapter", "checkpoints/last.ckpt"])
def test_outputs_are_not_written_through_a_link_out_of_the_folder(options, tmp_path, capsys, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside if name == "adapter" else outside / "precious")
    error = fails(["fit", *options, f"--run_dir={tmp_path / 'run'}", "--ckpt_path=null"], capsys)
    assert f"{link} is a link to {outside}" in error or "holds a run already" in error
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("precious", "precious")]


def test_a_folder_that_is_itself_a_link_and_links_inside_it_are_fine(options, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    options = [*options, *SEEDS_ALONE]
    run_dir = fit(tmp_path / "run", options, "--checkpoint.save_last=link")
    assert (run_dir / "checkpoints/last.ckpt").is_symlink()
    fit(run_dir, options, "--checkpoint.save_last=link", "--ckpt_path=last")


# -- checkpoints


class Harm:
    """What a pickle can do when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("way", ["last", "path"])
def test_a_checkpoint_that_would_execute_code_is_refused_and_executes_nothing(
    options, finished_run, tmp_path, capsys, way
):
    path = finished_run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "more": Harm(tmp_path / "harmed")}, path)
    way = "last" if way == "last" else str(path)
    error = fails(["fit", *options, f"--run_dir={finished_run}", f"--ckpt_path={way}"], capsys)
    assert "was not loaded" in error
    assert not (tmp_path / "harmed").exists()
    with pytest.raises(InputError, match="was not loaded"):
        WholeCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "harmed").exists()


def test_no_file_of_a_run_is_a_pickle(undisturbed):
    kinds = {path.suffix for path in undisturbed.rglob("*") if path.is_file()}
    assert kinds == {".ckpt", ".csv", ".html", ".json", ".jsonl", ".lock", ".safetensors", ".yaml"}
    for path in undisturbed.rglob("*.ckpt"):
        assert zipfile.is_zipfile(path)
        torch.load(path, weights_only=True)
    assert json.loads((undisturbed / "conditions.json").read_text())["seed_everything"] == 7


def test_links_of_others_in_the_folder_do_not_matter(options, tmp_path):
    (tmp_path / "run/.venv/bin").mkdir(parents=True)
    (tmp_path / "run/.venv/bin/python").symlink_to(sys.executable)
    fit(tmp_path / "run", [*options, *SEEDS_ALONE])


# -- file systems of clusters and virtual machines


@pytest.fixture
def without(monkeypatch):
    """Imitate a file system on which locks, or syncing a folder, give an error."""

    def no_locks(number: int) -> None:
        def flock(descriptor: int, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("fcntl.flock", flock)

    def no_folder_sync(number: int) -> None:
        fsync = os.fsync

        def of_files(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(number, os.strerror(number))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", of_files)

    return {"locks": no_locks, "folder sync": no_folder_sync}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_and_used(number, without, tmp_path, undisturbed, options):
    shutil.copytree(undisturbed, tmp_path / "run")  # with a run.lock
    without["locks"](number)
    for folder in (tmp_path / "new", tmp_path / "run"):
        lock = RunLock()
        with pytest.warns(UserWarning, match=f"{folder}: the file system there has no locks"):
            lock.acquire(folder)
        lock.release()
    with at_rest(tmp_path / "run"):  # what an export does
        pass


def test_a_fit_there_ends_as_everywhere(without, tmp_path, undisturbed, options):
    without["locks"](errno.ENOSYS)
    without["folder sync"](errno.EINVAL)
    run_dir = fit(tmp_path / "run", options, "--data.outer_epochs=1", UNMEASURED)
    assert (run_dir / "checkpoints/epoch=1.ckpt").exists()
    assert_begins_as(run_dir, undisturbed)


def test_a_lock_that_cannot_be_had_for_another_reason_is_one_clear_message(without, tmp_path):
    without["locks"](errno.EIO)
    with pytest.raises(InputError, match=r"run\.lock cannot be locked: Input/output error\. Choose another folder"):
        RunLock().acquire(tmp_path)


def test_a_folder_that_could_not_be_synced_for_another_reason_is_told(without, tmp_path):
    without["folder sync"](errno.EIO)
    with pytest.raises(InputError, match="could not be written: Input/output error"):
        write_whole(tmp_path / "file", "text")
