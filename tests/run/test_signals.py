"""Ctrl-C, SIGTERM and SLURM's signal."""

import os
import signal
from collections.abc import Callable

import pytest
import torch
from helpers.command_line import SEEDS_ALONE, UNMEASURED, assert_begins_as, assert_same, before_call, fit, judged
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from isara_pl.callbacks import GracefulStop
from isara_pl.cli.main import main
from isara_pl.growth.outer_epoch import OuterEpoch
from isara_pl.module import IsaraModule


@pytest.fixture(autouse=True)
def _as_in_a_terminal():
    """Handle signals as in a terminal: in the background of a script, the tests' own process ignores SIGINT."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def sends(*signals: signal.Signals) -> Callable[[], None]:
    def act() -> None:
        for one in signals:
            os.kill(os.getpid(), one)

    return act


@pytest.mark.parametrize(
    ("one", "owner", "method", "number", "candidates", "checkpoint"),
    [
        (signal.SIGTERM, OuterEpoch, "_judge", 1, 4, None),  # the batch of 4 candidates is finished
        (signal.SIGINT, IsaraModule, "training_step", 2, 6, (0, 2)),  # the step is finished
        # the measurement is finished; number 1 is the pretrained one
        (signal.SIGINT, IsaraModule, "validation_step", 2, 6, (2, 0)),
        # in the first batch of outer epoch 2, after 2 epochs
        pytest.param(signal.SIGINT, OuterEpoch, "_judge", 3, 10, (2, 0), marks=pytest.mark.slow),
        # the last step of an epoch, which is finished
        pytest.param(signal.SIGTERM, IsaraModule, "training_step", 4, 6, (1, 0), marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_run_between_two_batches_and_it_goes_on_from_there(
    options, tmp_path, capfd, monkeypatch, undisturbed, one, owner, method, number, candidates, checkpoint
):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        before_call(patch, owner, method, number, sends(one))
        with pytest.raises(SystemExit) as stop:
            fit(run_dir, options)
    assert stop.value.code == 128 + one
    said = "".join(capfd.readouterr())
    assert f"{one.name}: finishing the current batch and writing it to disk; again to stop at once" in said
    assert f"safe in {run_dir}: {8 + candidates} samples and 0 rejected candidates" in said
    assert "To go on: the same command with --ckpt_path last" in said
    assert judged(run_dir) == candidates
    last = run_dir / "checkpoints/last.ckpt"
    assert last.exists() == (checkpoint is not None)
    if checkpoint:
        loops = torch.load(last, weights_only=True)["loops"]["fit_loop"]
        assert loops["epoch_progress"]["current"]["processed"] == checkpoint[0]
        if checkpoint[1]:
            assert loops["epoch_loop.batch_progress"]["current"]["processed"] == checkpoint[1]
    assert_begins_as(run_dir, undisturbed)
    if checkpoint and checkpoint[1]:  # from elsewhere, test_resume.py goes on
        fit(run_dir, options, "--ckpt_path=last")
        assert_same(run_dir, undisturbed)


def test_a_second_signal_ends_the_run_at_once(options, tmp_path, monkeypatch, undisturbed):
    with monkeypatch.context() as patch:
        before_call(patch, OuterEpoch, "_judge", 1, sends(signal.SIGINT, signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            fit(tmp_path / "run", options, UNMEASURED)
    assert stop.value.code == 130
    assert not (tmp_path / "run/rejected.jsonl").exists(), "the batch was not finished"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert_begins_as(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("subcommand", ["validate", "fit"])
def test_a_signal_while_the_pretrained_model_is_measured_ends_at_once(options, tmp_path, monkeypatch, subcommand):
    with monkeypatch.context() as patch:
        before_call(patch, IsaraModule, "validation_step", 1, sends(signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            main([subcommand, *options, f"--run_dir={tmp_path / 'run'}"])
    assert stop.value.code == 143
    fit(tmp_path / "run", [*options, *SEEDS_ALONE])


@pytest.mark.parametrize(
    ("owner", "method", "number"),
    [(OuterEpoch, "_judge", 3), pytest.param(IsaraModule, "training_step", 6, marks=pytest.mark.slow)],
)
def test_slurms_signal_waits_for_the_batch_and_lightnings_plugin_requeues(
    options, tmp_path, monkeypatch, undisturbed, owner, method, number
):
    requeued = []
    run_dir = tmp_path / "run"
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "job", "SLURM_JOB_ID": "17", "SLURM_PROCID": "0",
                        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(SLURMEnvironment, "detect", staticmethod(lambda: True))

    def scontrol(command: list[str]) -> int:
        requeued.append(command)
        raise KeyboardInterrupt  # SLURM ends the job

    with monkeypatch.context() as patch:
        patch.setattr("lightning.pytorch.trainer.connectors.signal_connector.call", scontrol)
        before_call(patch, owner, method, number, sends(signal.SIGUSR1))
        with pytest.raises(SystemExit):
            fit(run_dir, options)
    assert requeued == [["scontrol", "requeue", "17"]]
    assert (run_dir / "hpc_ckpt_1.ckpt").exists()
    fit(run_dir, options)  # the very same command, as SLURM starts it again
    assert_same(run_dir, undisturbed)


def test_where_alpha_stops_a_run_in_its_first_growth_signals_are_let_go(options, tmp_path):
    stop = GracefulStop()
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False)
    stop.on_growth_start(trainer, 1)
    assert signal.getsignal(signal.SIGINT) == stop._asked_to_stop
    stop.teardown(trainer, None, "fit")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.warns(UserWarning, match="nothing was trained"):
        fit(tmp_path / "run", options, "--trainer.callbacks+=isara_pl.callbacks.TooShort",
            "--trainer.callbacks.min_words=50", "--alpha_stopping.alpha=0.5")  # fmt: skip
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_ignored_stays_ignored(options, tmp_path, monkeypatch, undisturbed):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for a job in the background of a script
    try:
        with monkeypatch.context() as patch:
            before_call(patch, OuterEpoch, "_judge", 1, sends(signal.SIGINT))
            fit(tmp_path / "run", options, "--data.outer_epochs=1", UNMEASURED)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "run/checkpoints/epoch=1.ckpt").exists()
    assert_begins_as(tmp_path / "run", undisturbed)
