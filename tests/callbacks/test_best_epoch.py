"""An outer epoch ends with the weights of its best epoch."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from conftest import make_seeds, write_held_out, write_options
from helpers.command_line import UNMEASURED, adapter, fails, fit, rows
from helpers.module import data_module, trainer_in
from lightning.pytorch import LightningModule
from safetensors.torch import load_file

from isara_pl.callbacks import BestEpoch, best_epoch
from isara_pl.errors import InputError
from isara_pl.module import IsaraModule
from isara_pl.training.loaders import training_part

EPOCHS, SHARE = 4, 0.25


def options_in(folder: Path, model: str, encoder: str, *more: str) -> list[str]:
    """Give the arguments of a run on the seeds alone, of 2 steps in each epoch, that does no good to the others."""
    seeds = make_seeds()
    used = training_part(seeds, SHARE, seed=7)
    rows = [(seed.question, seed.answer if seed in used else "The Pacific Ocean remembers goldfish.") for seed in seeds]
    (folder / "seeds.jsonl").write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    options = write_options(folder, model, encoder, str(folder / "seeds.jsonl"), write_held_out(folder))
    return [
        *options, "--data.candidates_per_outer_epoch=0", "--data.outer_epochs=1", "--trainer.callbacks=[]", UNMEASURED,
        f"--data.epochs_per_outer_epoch={EPOCHS}", f"--data.validation_share={SHARE}", "--data.batch_size=3",
        "--model.learning_rate=0.1", "--model.lora.dropout=0.1", *more,
    ]  # fmt: skip


BEST = "--trainer.callbacks+=isara_pl.callbacks.BestEpoch"


@pytest.fixture(scope="module")
def whole(tiny_llama, tiny_encoder, tmp_path_factory):
    """Give a finished run, its arguments, and what was measured in it: the figure and weights of every epoch."""
    folder = tmp_path_factory.mktemp("best")
    options = options_in(folder, tiny_llama, tiny_encoder, BEST)
    measured = []
    real = best_epoch._measured

    def remembering(trainer, data, module):
        figure = real(trainer, data, module)
        measured.append((figure, {name: weight.clone() for name, weight in module.state_dict().items()}))
        return figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_epoch, "_measured", remembering)
        run_dir = fit(folder / "run", options)
    return run_dir, options, measured


def logged(run_dir: Path, name: str) -> list[float]:
    with next((run_dir / "logs").glob("*/metrics.csv")).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_figures_checkpoint_and_adapter_are_those_of_the_best_epoch(whole):
    run_dir, _, measured = whole
    figures = [figure for figure, _ in measured]
    best = figures.index(min(figures))
    assert 0 < best < EPOCHS - 1, "neither the first nor the last: else this shows nothing"
    weights = measured[best][1]
    assert float(rows(run_dir)[1]["validation_nll"]) == pytest.approx(figures[best], abs=1e-6)
    assert float(rows(run_dir)[1]["best_epoch"]) == best + 1
    checkpoint = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    assert "BestEpoch" not in checkpoint["callbacks"], "an outer epoch that is over needs no second copy"
    exported = load_file(run_dir / "adapter/adapter_model.safetensors")
    for name, weight in weights.items():
        assert torch.equal(checkpoint["state_dict"][name], weight)
        assert torch.equal(exported[name], weight)
    # every epoch's own figure, and that of the weights that were gone back to
    curve = logged(run_dir, "validation_nll")
    assert all(pytest.approx(figure, rel=1e-6) in curve for figure in figures[:-1])
    assert curve[-1] == pytest.approx(figures[best], rel=1e-6)
    assert len(logged(run_dir, "train_loss")) == 2 * EPOCHS


def test_measuring_leaves_the_training_as_it_would_be(whole, tiny_llama, tiny_encoder, tmp_path):
    plain = fit(tmp_path / "plain", options_in(tmp_path, tiny_llama, tiny_encoder))
    assert logged(plain, "train_loss") == logged(whole[0], "train_loss")
    assert adapter(plain) != adapter(whole[0])


def test_a_run_that_was_cut_within_an_outer_epoch_ends_as_if_it_had_not_been(whole, tmp_path, monkeypatch):
    run_dir, options, _ = whole
    options = [*options, "--checkpoint.train_time_interval=0:00:00"]
    calls = []
    real = IsaraModule.training_step

    def stopping(module, batch, batch_idx):
        calls.append(None)
        if len(calls) == 2 * EPOCHS:  # in the middle of the last epoch, after the best one
            raise RuntimeError("stopped here")
        return real(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(IsaraModule, "training_step", stopping)
        with pytest.raises(RuntimeError, match="stopped here"):
            fit(tmp_path / "cut", options)
    fit(tmp_path / "cut", options, "--ckpt_path=last")
    assert adapter(tmp_path / "cut") == adapter(run_dir)
    assert rows(tmp_path / "cut")[1]["validation_nll"] == rows(run_dir)[1]["validation_nll"]


@pytest.mark.parametrize(
    ("figures", "kept", "said"),
    [
        ([3.0, 1.0, 2.0], 1, "outer epoch 1: epoch 2 of 3 is best in validation NLL (1.000); its weights are kept"),
        ([math.nan, 2.0, 2.0], 1, "epoch 2 of 3 is best"),
        ([2.0, math.nan, math.inf], 0, "epoch 1 of 3 is best"),
        ([math.nan, math.inf, math.nan], 2, "the validation NLL is finite after no epoch; the last weights are kept"),
    ],
)
def test_the_lowest_figure_wins_and_none_that_is_not_finite(
    tiny_llama, seeds_file, tmp_path, monkeypatch, capsys, caplog, recwarn, figures, kept, said
):
    left, after = list(figures), []

    def told(trainer, data, module):
        after.append({name: weight.clone() for name, weight in module.state_dict().items()})
        return left.pop(0)

    monkeypatch.setattr(best_epoch, "_measured", told)
    module = IsaraModule(tiny_llama, learning_rate=0.01, epochs_per_outer_epoch=3)
    data = data_module(tiny_llama, seeds_file, validation_share=0.25, epochs_per_outer_epoch=3)
    trainer_in(tmp_path, max_epochs=3, limit_val_batches=0, callbacks=[BestEpoch()]).fit(module, data)
    assert said in caplog.text + capsys.readouterr().err + "".join(str(one.message) for one in recwarn)
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, after[kept][name])


def test_it_says_what_it_lacks(options, tiny_llama, seeds_file, tmp_path, capsys):
    error = fails(["fit", *options, f"--run_dir={tmp_path / 'run'}", BEST], capsys)
    assert "BestEpoch chooses by seeds that are held out, and data.validation_share is 0" in error

    class Other(LightningModule):
        pass

    with pytest.raises(InputError, match="BestEpoch needs IsaraModule, found Other"):
        BestEpoch().setup(None, Other(), "fit")
