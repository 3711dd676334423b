"""Accumulated gradients: a step on several batches is the step on one batch of their pairs."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from conftest import write_options
from helpers.distillation import lesson, plain_loss
from helpers.module import trainer_in
from helpers.several_processes import FakeTrainer, on_two
from helpers.training import loaded
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from isara_pl.cli.main import main
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample
from isara_pl.module import IsaraModule
from isara_pl.training.pairs import EncodedPair, collate, encode_pair

WORDS = (1, 9, 30, 2, 18, 5, 24, 3, 12, 1, 15)  # of each answer
SIZES = (1, 3, 1, 2, 1, 2, 1)  # pairs of each batch
OF_TEACHER = {"sft": lambda place: False, "distill": lambda place: True, "sft+distill": lambda place: place % 3 > 0}


def sample(place: int) -> Sample:
    """Give a pair whose answer has some words, another number of them at each place."""
    return Sample(f"seed-{place:05d}", f"Why is it like that on day {place}?", " ".join(["light"] * WORDS[place]))


def pairs_of(module: IsaraModule, objective: str) -> list[EncodedPair]:
    qa, vocabulary = prompt_format("qa", None), module.adapted.config.vocab_size
    pairs = [encode_pair(sample(place), qa, module.tokenizer, 256, end=True) for place in range(len(WORDS))]
    return [
        lesson(pair, vocabulary, place, learned=objective == "sft+distill") if OF_TEACHER[objective](place) else pair
        for place, pair in enumerate(pairs)
    ]


def flat(gradients) -> torch.Tensor:
    return torch.cat([one.flatten() for one in gradients])


class Steps(Callback):
    """Keeps the gradient of each optimiser step, and what the pairs of that step give in plain PyTorch."""

    def __init__(self, groups: list[list[EncodedPair]]) -> None:
        self.groups = iter(groups)
        self.found: list[torch.Tensor] = []
        self.exact: list[torch.Tensor] = []
        self.losses: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        weights = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # a fused optimiser divides by the scale itself, later
        scale = scaler.get_scale() if scaler is not None and optimizer.defaults["fused"] else 1.0
        self.found.append(flat(weight.grad / scale for weight in weights))
        loss = plain_loss(pl_module, next(self.groups))
        self.exact.append(flat(torch.autograd.grad(loss, weights)))
        self.losses.append(float(loss))


def groups(pairs: list[EncodedPair], accumulated: int) -> tuple[list[list[EncodedPair]], list[list[EncodedPair]]]:
    """Split pairs into batches, and the batches into those of each step."""
    ends = [sum(SIZES[: place + 1]) for place in range(len(SIZES))]
    batches = [pairs[end - size : end] for end, size in zip(ends, SIZES, strict=True)]
    starts = range(0, len(batches), accumulated)
    return batches, [[pair for one in batches[start : start + accumulated] for pair in one] for start in starts]


def logged(folder: Path, name: str) -> list[float]:
    header, *lines = [line.split(",") for line in (folder / "logs/metrics.csv").read_text().splitlines()]
    return [float(line[header.index(name)]) for line in lines if line[header.index(name)]]


def fit(module: IsaraModule, batches: list[list[EncodedPair]], accumulated: int, folder: Path, **options) -> Trainer:
    """Fit over the batches of a loader that is not ours."""
    trainer = trainer_in(
        folder,
        logger=CSVLogger(folder, "logs", ""),
        log_every_n_steps=1,
        accumulate_grad_batches=accumulated,
        **options,
    )
    trainer.fit(module, DataLoader(batches, collate_fn=lambda one: collate(one[0], 1)))
    return trainer


def steps_of(module: IsaraModule, objective: str, accumulated: int, folder: Path, **options) -> Steps:
    batches, of_steps = groups(pairs_of(module, objective), accumulated)
    steps = Steps(of_steps)
    fit(module, batches, accumulated, folder, callbacks=[steps], **options)
    assert len(steps.found) == len(of_steps)
    return steps


@pytest.mark.parametrize("objective", OF_TEACHER)
@pytest.mark.parametrize("accumulated", [1, 3, 4, 100])  # of 7 batches: the last step has 1 of 3, 3 of 4, 7 of 100
def test_a_step_on_several_batches_is_that_on_one_batch_of_their_pairs(tiny_llama, tmp_path, objective, accumulated):
    module = loaded(tiny_llama, learning_rate=1e-2, distill_weight=0.3)
    steps = steps_of(module, objective, accumulated, tmp_path)
    for found, exact in zip(steps.found, steps.exact, strict=True):
        assert float((found - exact).norm() / exact.norm()) < 1e-5
    assert logged(tmp_path, "train_loss") == pytest.approx(steps.losses, rel=1e-4), "that of the whole step"


@pytest.mark.parametrize("clipped", [None, 1e6], ids=["fused", "not fused"])
def test_a_scale_of_float16_changes_nothing(tiny_llama, tmp_path, clipped):
    module = loaded(tiny_llama, learning_rate=1e-2, dtype="float32")
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024))
    steps = steps_of(module, "sft", 3, tmp_path, plugins=[precision], gradient_clip_val=clipped)
    assert module.optimizers(use_pl_optimizer=False).defaults["fused"] is (clipped is None)
    for found, exact in zip(steps.found, steps.exact, strict=True):
        assert float((found - exact).norm() / exact.norm()) < 2e-2


def test_a_step_whose_first_batches_a_checkpoint_lost_is_that_on_the_others(tiny_llama):
    module = loaded(tiny_llama)
    module.log = lambda *_, **__: None
    module._trainer = trainer = FakeTrainer(1)
    trainer.accumulate_grad_batches = 4
    batches, _ = groups(pairs_of(module, "sft"), 4)
    for place in (2, 3):
        (module.training_step(collate(batches[place], 1), place) / 4).backward()
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    exact = torch.autograd.grad(plain_loss(module, [*batches[2], *batches[3]]), weights)
    torch.testing.assert_close(flat(weight.grad for weight in weights), flat(exact), rtol=1e-4, atol=1e-6)


class Recorder(Callback):
    """Writes the gradient of each optimiser step into the run folder."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradient = flat(parameter.grad for parameter in pl_module.parameters() if parameter.requires_grad)
        folder = Path(trainer.default_root_dir)
        torch.save(gradient, folder / f"{trainer.global_step}-{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_processes_make_one_step_of_all_batches(tiny_llama, tiny_encoder, held_out_file, tmp_path):
    rows = [{"question": one.question, "answer": one.answer} for one in map(sample, range(len(WORDS)))]
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "fit",
        *write_options(tmp_path, tiny_llama, tiny_encoder, str(seeds), held_out_file),
        "--data.candidates_per_outer_epoch=0",
        "--data.outer_epochs=1",
        "--data.epochs_per_outer_epoch=1",
        "--model.objective=sft+distill",
        "--data.distill_on=seeds",
        f"--trainer.callbacks={__name__}.Recorder",
    ]
    main([*arguments, f"--run_dir={tmp_path / 'one'}", f"--data.batch_size={len(WORDS)}"])
    several = ["--data.batch_size=5", "--trainer.accumulate_grad_batches=4"]  # 5, 5 and 1: one process has none
    done = on_two(
        arguments, tmp_path / "two", *several, PYTHONPATH=os.pathsep.join(map(str, Path(__file__).parents[:2]))
    )
    assert done.returncode == 0, done.stdout
    (exact,) = (torch.load(path) for path in (tmp_path / "one").glob("*.pt"))
    found = [torch.load(path) for path in (tmp_path / "two").glob("*.pt")]
    assert len(found) == 2, "one step, of each process"
    for gradient in found:
        assert float((gradient - exact).norm() / exact.norm()) < 1e-4


# -- the schedule


@pytest.mark.parametrize(("accumulated", "steps"), [(1, 7), (3, 3), (4, 2), (100, 1)])
@pytest.mark.parametrize("epochs", [1, 2])
def test_the_schedule_counts_optimiser_steps(tiny_llama, tmp_path, accumulated, steps, epochs):
    module = loaded(tiny_llama, learning_rate=1e-3, warmup_share=0, epochs_per_outer_epoch=epochs)
    batches, _ = groups(pairs_of(module, "sft"), accumulated)
    assert fit(module, batches, accumulated, tmp_path, max_epochs=epochs).global_step == epochs * steps
    assert logged(tmp_path, "learning_rate") == pytest.approx(
        [1e-3 * (1 + math.cos(math.pi * step / (epochs * steps))) / 2 for step in range(epochs * steps)]
    )
