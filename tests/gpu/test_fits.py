"""Whole runs of seconds on the device, through the command line."""

import importlib.util
import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.command_line import LISTS, adapter, before_call, fit, rows
from helpers.module import data_module, trainer_in
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from safetensors.torch import load_file

from isara_pl.cli.main import main
from isara_pl.models.adapter import LoraOptions
from isara_pl.module import IsaraModule

pytestmark = pytest.mark.cuda


def weights(run_dir: Path) -> torch.Tensor:
    """Give all weights of the exported adapter in one row."""
    return torch.cat(
        [one.float().flatten() for one in load_file(run_dir / "adapter/adapter_model.safetensors").values()]
    )


def assert_whole(run_dir: Path) -> None:
    """Two outer epochs were grown and trained on, and every figure is a number."""
    pool = [json.loads(line) for name in LISTS for line in (run_dir / name).open()]
    assert {sample["outer_epoch"] for sample in pool} == {0, 1, 2}
    halves = load_file(run_dir / "adapter/adapter_model.safetensors")
    assert all(one.isfinite().all() for one in halves.values())
    assert any(one.any() for name, one in halves.items() if "lora_B" in name), "it was trained"
    figures = [float(row[name]) for row in rows(run_dir) for name in ("mc2", "best_answer_nll") if row[name]]
    assert len(figures) == 6, "before training, and after each outer epoch"
    assert all(map(math.isfinite, figures))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true", "32-true"])
def test_two_outer_epochs_in_each_precision(options, accelerator, tmp_path, precision):
    assert_whole(fit(tmp_path / "run", options, *accelerator, f"--trainer.precision={precision}"))


def test_held_out_figures_agree_with_the_cpus_before_training(options, accelerator, tmp_path, undisturbed):
    run_dir = fit(tmp_path / "run", options, *accelerator, "--data.outer_epochs=1")
    before, of_cpu = rows(run_dir)[0], rows(undisturbed)[0]
    for name in ("mc1", "mc2", "best_answer_nll"):
        assert float(before[name]) == pytest.approx(float(of_cpu[name]), rel=1e-3)


def test_a_step_whose_gradient_overflows_is_skipped_and_training_goes_on(tiny_llama, seeds_file, tmp_path, device):
    class Seen(Callback):
        def __init__(self) -> None:
            self.weights: list[torch.Tensor] = []

        def on_train_batch_end(self, trainer, pl_module, *_) -> None:
            self.weights.append(torch.cat([one.flatten().clone() for one in pl_module.state_dict().values()]))

    # the first step overflows float16 by far, the next ones do not
    scaler = torch.amp.GradScaler(device, init_scale=2.0**60, backoff_factor=2.0**-52)
    seen, module = Seen(), IsaraModule(tiny_llama, LoraOptions(r=4), learning_rate=1e-2)
    module.configure_model()
    fresh = torch.cat([one.flatten().clone() for one in module.state_dict().values()]).to(device)
    trainer = trainer_in(
        tmp_path, accelerator="gpu" if device == "cuda" else "cpu", devices=1, callbacks=[seen],
        plugins=[MixedPrecision("16-mixed", device, scaler)],
    )  # fmt: skip
    trainer.fit(module, data_module(tiny_llama, seeds_file, batch_size=2, epochs_per_outer_epoch=1))
    assert len(seen.weights) == 4
    assert torch.equal(seen.weights[0], fresh)
    assert scaler.get_scale() == 2.0**8
    for before, after in zip(seen.weights[:-1], seen.weights[1:], strict=True):
        assert after.isfinite().all()
        assert not torch.equal(before, after)


def test_a_run_that_was_stopped_ends_as_an_undisturbed_one(options, accelerator, tmp_path, record_property):
    options = [*options, *accelerator]  # in float32
    whole = fit(tmp_path / "whole", options)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, IsaraModule, "training_step", 6, stop)
        with pytest.raises(SystemExit):
            fit(tmp_path / "stopped", options)
    stopped = fit(tmp_path / "stopped", options, "--ckpt_path=last")
    apart = float((weights(stopped) - weights(whole)).abs().max())
    record_property("largest difference of the adapter's weights", apart)
    for name in LISTS:
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    assert apart < 1e-3


def test_the_same_run_twice_grows_the_same_pool(options, accelerator, tmp_path, record_property):
    options = [*options, *accelerator, "--trainer.precision=bf16-mixed"]
    runs = [fit(tmp_path / name, options) for name in ("one", "other")]
    record_property(
        "largest difference of the adapter's weights", float((weights(runs[0]) - weights(runs[1])).abs().max())
    )
    for name in LISTS:
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()


def test_deterministic_runs_give_the_same_bytes(options, accelerator, tmp_path):
    options = [*options, *accelerator, "--trainer.precision=bf16-mixed", "--trainer.deterministic=true"]
    runs = [fit(tmp_path / name, options) for name in ("one", "other")]
    for name in LISTS:
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert adapter(runs[0]) == adapter(runs[1])


def test_distillation(options, accelerator, tmp_path):
    more = ["--trainer.precision=bf16-mixed", "--model.objective=distill"]
    run_dir = fit(tmp_path / "run", options, *accelerator, *more)
    assert_whole(run_dir)
    assert any((run_dir / "teacher").iterdir())


def test_gradient_checkpointing(options, accelerator, tmp_path):
    more = ["--trainer.precision=bf16-mixed", "--model.gradient_checkpointing=true"]
    assert_whole(fit(tmp_path / "run", options, *accelerator, *more))


def test_compiled_layers(options, accelerator, tmp_path, device, monkeypatch):
    torch.compiler.reset()
    if device == "cpu":  # its compiler takes long, and is tested elsewhere
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    more = ["--trainer.precision=bf16-mixed", "--model.compile=true"]
    try:
        assert_whole(fit(tmp_path / "run", options, *accelerator, *more))
    finally:
        torch.compiler.reset()


def test_a_base_in_4_bits_is_trained_measured_and_exported(options, accelerator, tmp_path, device):
    if device == "cpu":
        pytest.skip("nf4 needs a CUDA GPU")
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    more = ["--trainer.precision=bf16-mixed", "--model.quantization=nf4"]
    run_dir = fit(tmp_path / "run", options, *accelerator, *more)
    assert_whole(run_dir)
    main(["export", str(run_dir), "--to", str(tmp_path / "exported")])
    assert list((tmp_path / "exported").rglob("*.safetensors"))


def test_predictions_and_figures_of_a_finished_run(options, accelerator, tmp_path):
    options = [*options, *accelerator, f"--run_dir={tmp_path / 'run'}", "--trainer.precision=bf16-mixed"]
    main(["fit", *options])
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Why so?"}\n{"question": "And what is that?"}\n')
    main(["predict", *options, "--ckpt_path=last", f"--data.questions={questions}"])
    main(["validate", *options, "--ckpt_path=last"])
    assert (tmp_path / "run/predictions.jsonl").read_text().count("\n") == 2
