"""Checkpoints that a run can go on from, wherever it was when they were written."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_held_out, write_options, write_seeds
from helpers.command_line import adapter, assert_same, before_call, fails, fit, rows
from lightning.pytorch import Callback

from isara_pl.callbacks import AdapterExport
from isara_pl.errors import InputError
from isara_pl.module import IsaraModule
from isara_pl.run.checkpoints import WholeCheckpointIO


def epochs_and_batches(path) -> tuple[int, int]:
    loops = torch.load(path, weights_only=True)["loops"]["fit_loop"]
    return (
        loops["epoch_progress"]["current"]["processed"],
        loops["epoch_loop.batch_progress"]["current"]["processed"],
    )


@pytest.mark.parametrize(
    "saving",
    [
        ["--checkpoint.every_n_train_steps=1000"],
        pytest.param(["--checkpoint.every_n_epochs=3", "--checkpoint.save_last=link"], marks=pytest.mark.slow),
        pytest.param(["--checkpoint.train_time_interval=1:00:00"], marks=pytest.mark.slow),
        pytest.param(["--checkpoint.every_n_train_steps=1000", "--checkpoint.save_last=link"], marks=pytest.mark.slow),
    ],
)
def test_the_last_checkpoint_is_that_of_the_last_epoch_however_rarely_others_are_saved(
    options, tmp_path, undisturbed, saving
):
    run_dir = fit(tmp_path / "run", options, *saving)
    assert epochs_and_batches(run_dir / "checkpoints/last.ckpt")[0] == 4
    assert_same(run_dir, undisturbed)


def stop() -> None:
    raise RuntimeError("stopped here")


# a place of each kind, and the call before which the run ends
PLACES = {
    "within accumulated gradients": (IsaraModule, "training_step", 4),
    "after an epoch's last step and its measuring": (AdapterExport, "on_train_epoch_end", 2),
}


@pytest.mark.parametrize("accumulated", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_no_checkpoint_falls_into_accumulated_gradients_or_after_an_epochs_last_step(
    options, tmp_path, monkeypatch, accumulated
):
    # an interval of 0 saves after every batch that may be saved after; an epoch has 4 batches
    options = [*options, "--data.outer_epochs=1", f"--trainer.accumulate_grad_batches={accumulated}"]
    whole = fit(tmp_path / "whole", options)
    options = [*options, "--checkpoint.train_time_interval=0:00:00"]
    for place, call in PLACES.items():
        run_dir = tmp_path / place
        with monkeypatch.context() as patch:
            before_call(patch, *call, stop)
            with pytest.raises(RuntimeError, match="stopped here"):
                fit(run_dir, options)
        assert epochs_and_batches(run_dir / "checkpoints/last.ckpt")[1] == accumulated, place
        fit(run_dir, options, "--ckpt_path=last")
        assert adapter(run_dir) == adapter(whole), place
        assert [row["answer_nll"] for row in rows(run_dir)] == [row["answer_nll"] for row in rows(whole)], place


def test_checkpoints_of_before_the_end_of_an_epoch_alone_are_refused(options, tmp_path, capsys):
    error = fails(
        ["fit", *options, f"--run_dir={tmp_path / 'run'}", "--checkpoint.save_on_train_epoch_end=false"], capsys
    )
    assert "checkpoint.save_on_train_epoch_end is false" in error


class OwnState(Callback):
    """Puts what is not plain into the checkpoint."""

    def state_dict(self):
        return {"figure": np.float64(1.5)}


def test_a_checkpoint_that_could_not_be_read_again_is_told_when_it_is_written(options, tmp_path, capsys):
    run_dir = tmp_path / "run"
    error = fails(["fit", *options, f"--run_dir={run_dir}", f"--trainer.callbacks+={__name__}.OwnState"], capsys)
    assert f"{run_dir}/checkpoints/epoch=0.ckpt was not written: it would hold more than plain values" in error
    assert not list((run_dir / "checkpoints").glob("*"))


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 1}, path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="could not be written: No space left"):
            WholeCheckpointIO().save_checkpoint({"step": 2}, path)
    assert WholeCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_trial_run_leaves_no_checkpoint(options, tmp_path):
    run_dir = fit(tmp_path / "run", options, "--trainer.fast_dev_run=true")
    assert not list(run_dir.rglob("*.ckpt"))


def test_a_run_that_was_moved_goes_on_and_its_files_name_no_place_but_what_was_given(
    tiny_llama, tiny_encoder, tmp_path, undisturbed, monkeypatch, recwarn
):
    monkeypatch.chdir(tmp_path)
    for name, folder in (("model", tiny_llama), ("encoder", tiny_encoder)):
        (tmp_path / name).symlink_to(folder)
    options = write_options(tmp_path, "./model", "./encoder", write_seeds(Path()), write_held_out(Path()))
    with monkeypatch.context() as patch:
        before_call(patch, AdapterExport, "on_train_epoch_end", 3, stop)
        with pytest.raises(RuntimeError):
            fit(Path("there"), options)
    Path("there").rename("here")
    recwarn.clear()
    run_dir = fit(Path("here"), options, "--ckpt_path=last")
    assert_same(run_dir, undisturbed)
    assert not [str(warning.message) for warning in recwarn if "dirpath" in str(warning.message)]
    # its config.yaml alone means the same from everywhere
    files = [path for path in run_dir.rglob("*") if path.is_file() and path.name != "config.yaml"]
    assert len(files) > 10
    for path in files:
        for place in (tmp_path, Path.home(), tiny_llama, tiny_encoder):
            assert str(place).encode() not in path.read_bytes(), path
