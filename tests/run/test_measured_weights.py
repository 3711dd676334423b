"""Every figure of a run stands beside the weights that it was measured of, wherever a fit ended."""

import contextlib
import itertools
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from helpers.command_line import adapter, assert_same, fit, rows
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file

from isara_pl import IsaraDataModule
from isara_pl.callbacks import OuterEpochTable, RunCheckpoint, TruthfulnessEvaluation
from isara_pl.cli.main import main
from isara_pl.results.items import read_results
from isara_pl.run.checkpoints import weights_hash

GROWN = {"outer_epoch", "novelty", "candidates", "accepted", "data_scaling", "trained_on", "seconds", "weights"}


class StopAfter(Callback):
    """Ends the fit after so many batches, as Timer and others do; at the same place in `where`."""

    def __init__(self, batches: int, where: str = "batch") -> None:
        self.batches, self.where, self.seen = batches, where, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += 1
        if self.where == "batch" and self.seen == self.batches:
            trainer.should_stop = True

    def on_validation_end(self, trainer, pl_module):
        if self.where == "validation" and self.seen >= self.batches:
            trainer.should_stop = True


def of_checkpoint(path: Path) -> str:
    return weights_hash(torch.load(path, weights_only=True)["state_dict"])


def check_weights(run_dir: Path) -> None:
    """See that every figure of the run folder belongs to the weights whose name stands beside it."""
    known = {of_checkpoint(path) for path in (run_dir / "checkpoints").glob("*.ckpt")}
    last = ""
    for row in rows(run_dir):
        figures = {name for name, value in row.items() if value and name not in GROWN}
        if row["outer_epoch"] == "0":
            assert row["weights"].startswith("pretrained-")
        elif figures:
            assert row["weights"] in known
            assert row["trained_on"]
        if row["trained_on"] not in ("", "0"):
            last = row["weights"]
    if (run_dir / "adapter").exists():
        assert weights_hash(load_file(run_dir / "adapter/adapter_model.safetensors")) == last
    beside = {row["outer_epoch"]: row for row in rows(run_dir)}
    for file in (run_dir / "evaluation").glob("*.jsonl"):
        for line in read_results(file):
            assert line["weights"] == beside[str(line["outer_epoch"])]["weights"]


# an outer epoch has 2 epochs, the first one's of 3 batches or 4
CUTS = {
    "max_steps": ["--trainer.max_steps={}"],
    "should_stop": [f"--trainer.callbacks+={__name__}.StopAfter", "--trainer.callbacks.batches={}"],
}


# one place in each outer epoch here; these and others by both in `make test-slow`
@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("should_stop", 4),
        ("max_steps", 9),
        *(
            pytest.param(*cut, marks=pytest.mark.slow)
            for cut in itertools.product(CUTS, (1, 4, 7, 9))
            if cut not in (("should_stop", 4), ("max_steps", 9))
        ),
    ],
)
def test_a_fit_that_ends_within_an_epoch_claims_nothing_of_it_and_goes_on_there(
    options, tmp_path, undisturbed, kind, steps
):
    run_dir = fit(tmp_path / "run", options, *(argument.format(steps) for argument in CUTS[kind]))
    check_weights(run_dir)
    found = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    assert found["global_step"] == steps
    done = found["IsaraDataModule"]["trained_outer_epochs"]
    cut = {row["outer_epoch"]: row for row in rows(run_dir)}
    assert sorted(cut) == [str(number) for number in range(done + 2)]
    whole = {row["outer_epoch"]: {**row, "seconds": ""} for row in rows(undisturbed)}
    assert all({**cut[str(number)], "seconds": ""} == whole[str(number)] for number in range(done + 1))
    assert not {name for name, value in cut[str(done + 1)].items() if value} - (GROWN - {"trained_on", "weights"})
    fit(tmp_path / "run", options, "--ckpt_path=last")
    assert_same(run_dir, undisturbed)
    check_weights(run_dir)


class EndAfter(Callback):
    """Ends the process's fit at a batch: by a signal, as a cluster does, or by an error."""

    def __init__(self, batches: int, by: str) -> None:
        self.batches, self.by, self.seen = batches, by, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += 1
        if self.seen == self.batches and self.by == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.seen == self.batches:
            raise RuntimeError("stopped here")


OTHER_ENDS = {
    "max_time": ["--trainer.max_time={milliseconds: 1}"],  # of training
    "EarlyStopping": [
        *("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=answer_nll"),
        "--trainer.callbacks.stopping_threshold=1000",
    ],
    **{
        f"{by} after batch {batches}": [
            *(f"--trainer.callbacks+={__name__}.EndAfter", f"--trainer.callbacks.batches={batches}"),
            f"--trainer.callbacks.by={by}",
        ]
        for by, batches in (("signal", 2), ("signal", 8), ("error", 6))
    },
}


# signals, which test_signals.py sends as well, and the end of the time in `make test-slow`
@pytest.mark.parametrize(
    "end",
    [pytest.param(end, marks=() if end == "EarlyStopping" else pytest.mark.slow) for end in OTHER_ENDS],
)
def test_wherever_a_fit_ends_its_figures_are_of_their_weights_and_a_resume_gives_all(
    options, tmp_path, undisturbed, end
):
    run_dir = tmp_path / "run"
    with contextlib.suppress(RuntimeError, SystemExit):
        fit(run_dir, options, *OTHER_ENDS[end])
    check_weights(run_dir)
    assert not (run_dir / "adapter").exists() or adapter(run_dir) != adapter(undisturbed)  # it did end before
    fit(run_dir, options, "--ckpt_path=last")
    assert_same(run_dir, undisturbed)
    check_weights(run_dir)


def test_a_stop_within_accumulated_gradients_waits_for_their_step(options, tmp_path):
    options = [
        *options,
        "--data.outer_epochs=1",
        "--trainer.accumulate_grad_batches=2",
        "--trainer.val_check_interval=1",
    ]
    whole = fit(tmp_path / "whole", options)
    stop = [f"--trainer.callbacks+={__name__}.StopAfter", "--trainer.callbacks.batches=1"]
    # an outer epoch is measured in its second epoch only, and an epoch has 2 steps
    for where, step in (("batch", 1), ("validation", 3)):
        run_dir = fit(tmp_path / where, options, *stop, f"--trainer.callbacks.where={where}")
        assert torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["global_step"] == step
        check_weights(run_dir)
        fit(run_dir, options, "--ckpt_path=last")
        assert adapter(run_dir) == adapter(whole), where
        check_weights(run_dir)


@pytest.mark.parametrize(
    ("measuring", "measured"),
    [
        (["--trainer.val_check_interval=2"], {"0", "1"}),  # the second outer epoch has an odd number of batches
        (["--trainer.limit_train_batches=2"], {"0", "1", "2"}),
    ],
)
def test_a_row_holds_figures_of_a_validation_of_these_very_weights_or_none(options, tmp_path, measuring, measured):
    run_dir = fit(tmp_path / "run", options, *measuring)
    check_weights(run_dir)
    assert {row["outer_epoch"] for row in rows(run_dir) if row["answer_nll"]} == measured
    assert all(row["trained_on"] for row in rows(run_dir)[1:])
    assert {str(line["outer_epoch"]) for line in read_results(run_dir / "evaluation/truthfulness.jsonl")} == measured


def test_weights_within_an_outer_epoch_are_measured_and_stand_in_no_row(options, finished_run, caplog):
    run_dir = finished_run
    before = rows(run_dir), (run_dir / "evaluation/truthfulness.jsonl").read_bytes()
    within = [f"--run_dir={run_dir}", f"--ckpt_path={run_dir}/checkpoints/epoch=2.ckpt"]
    with caplog.at_level("WARNING"), pytest.warns(UserWarning, match="stand at the end of none"):
        main(["validate", *options, *within])
    main(["test", *options, *within])
    assert (rows(run_dir), (run_dir / "evaluation/truthfulness.jsonl").read_bytes()) == before
    for more in ([f"--ckpt_path={run_dir}/checkpoints/epoch=1.ckpt"], []):  # these do
        main(["validate", *options, f"--run_dir={run_dir}", *more])
        assert rows(run_dir) == before[0]


@pytest.mark.slow
def test_the_weights_of_another_run_and_another_base_overwrite_no_row(options, finished_run, tmp_path, tiny):
    other = fit(tmp_path / "other", options, "--data.candidates_per_outer_epoch=0", "--data.outer_epochs=1")
    before = rows(finished_run)
    with pytest.warns(UserWarning, match="stand at the end of none"):
        main(["validate", *options, f"--run_dir={finished_run}", f"--ckpt_path={other}/checkpoints/last.ckpt"])
    with pytest.warns(UserWarning, match="stand at the end of none"):
        main(["validate", *options, f"--run_dir={finished_run}", f"--model.name={tiny('opt')}"])
    assert rows(finished_run) == before


def test_the_best_checkpoint_of_lightnings_own_is_measured_as_what_it_is(parts, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    # saved at the end of the validation, when Lightning does not count the epoch yet
    best = ModelCheckpoint(tmp_path / "best", monitor="answer_nll", save_on_train_epoch_end=False, save_top_k=-1)
    module, data, trainer = parts(callbacks=[best])
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.fit(module, datamodule=data)
    before = rows(tmp_path / "run")
    for number, path in enumerate(sorted((tmp_path / "best").glob("*.ckpt")), start=1):
        trainer.validate(module, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)
        trainer.test(module, datamodule=data, ckpt_path=path, verbose=False, weights_only=True)
        assert (data.trained_outer_epochs, data.within_outer_epoch) == (number, False)
    trainer.test(module, datamodule=data, ckpt_path="best", verbose=False, weights_only=True)
    assert rows(tmp_path / "run") == before
    lines = read_results(tmp_path / "run/evaluation/truthfulness.jsonl")
    assert {(str(line["outer_epoch"]), line["weights"]) for line in lines} == {
        (row["outer_epoch"], row["weights"]) for row in before
    }


def test_weights_that_were_put_in_by_hand_are_not_the_pretrained_ones(parts, tmp_path):
    module, data, trainer = parts()
    module.configure_model()
    module.load_state_dict({name: weight + 0.1 for name, weight in module.state_dict().items()})
    with pytest.warns(UserWarning, match="stand at the end of none"):
        trainer.validate(module, datamodule=data, verbose=False)
    assert not (tmp_path / "run/metrics.csv").exists()
    assert not (tmp_path / "run/evaluation").exists()


def test_an_outer_epoch_that_is_not_measured_has_no_figures_of_the_one_before(parts, tmp_path):
    module, data, trainer = parts(check_val_every_n_epoch=2)
    trainer.validate(module, datamodule=data, verbose=False)
    trainer.fit(module, datamodule=data)
    assert [bool(row["answer_nll"]) for row in rows(tmp_path / "run")] == [True, False, True]
    assert [row["trained_on"] for row in rows(tmp_path / "run")][1:] == ["11", "14"]
    assert {line["outer_epoch"] for line in read_results(tmp_path / "run/evaluation/truthfulness.jsonl")} == {0, 2}


class Averaged(Callback):
    """Measures other weights than are kept, as Lightning's WeightAveraging does."""

    def on_validation_start(self, trainer, pl_module):
        self.own = {name: weight.clone() for name, weight in pl_module.state_dict().items()}
        pl_module.load_state_dict({name: weight / 2 for name, weight in self.own.items()})

    def on_validation_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.own)


def test_figures_of_averaged_weights_do_not_stand_beside_the_last_ones(parts, tmp_path):
    module, data, trainer = parts()
    trainer.callbacks.insert(1, Averaged())
    trainer.fit(module, datamodule=data)
    assert [row["answer_nll"] for row in rows(tmp_path / "run")] == ["", ""]
    assert all(row["trained_on"] for row in rows(tmp_path / "run"))


class Plain(LightningModule):
    """Somebody's own module, without LoRA."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(torch.ones(1, 2)).sum()

    def validation_step(self, batch, batch_idx):
        self.log("own", float(self.layer.weight.sum()), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_weights_of_anyones_module_are_named(tiny_encoder, seeds_file, tmp_path):
    data = IsaraDataModule(seeds_file, encoder=tiny_encoder, candidates_per_outer_epoch=0, outer_epochs=1)
    module = Plain()
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=1, reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0,
        accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[OuterEpochTable(), TruthfulnessEvaluation(), RunCheckpoint()],
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    (row,) = rows(tmp_path)
    assert row["weights"] == weights_hash(dict(module.named_parameters()))
    assert json.loads(row["trained_on"]) == 8
