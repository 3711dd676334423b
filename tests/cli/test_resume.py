"""A run that was cut off anywhere goes on as if it had not been; what it cannot go on from is refused, and stays."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import write_held_out, write_options, write_seeds
from helpers.command_line import LISTS, UNMEASURED, adapter, assert_same, fails, fit


@pytest.mark.slow
def test_a_run_killed_before_its_first_last_checkpoint_goes_on_from_its_pool(options, cut_run, undisturbed):
    run_dir = cut_run(3)
    (run_dir / "checkpoints/last.ckpt").unlink()  # as between the two files of the first checkpoint
    assert (run_dir / "checkpoints/epoch=0.ckpt").exists()
    assert_same(fit(run_dir, options, "--ckpt_path=last"), undisturbed)


def test_a_run_killed_before_its_first_checkpoint_goes_on_from_its_pool(options, tmp_path, undisturbed):
    cut = tmp_path / "cut"
    cut.mkdir()
    samples = (undisturbed / "pool.jsonl").read_text().splitlines(keepends=True)
    (cut / "pool.jsonl").write_text("".join(samples[: 8 + 4]))  # the seeds, and the first batch of candidates
    (cut / "rejected.jsonl").write_text("")
    fit(cut, options, UNMEASURED, "--ckpt_path=last")
    for name in LISTS:
        assert (cut / name).read_bytes() == (undisturbed / name).read_bytes()
    assert adapter(cut) == adapter(undisturbed)


@pytest.fixture(scope="module")
def with_every_step(tmp_path_factory, tiny_llama, tiny_encoder):
    """Give the folder of `undisturbed` with a checkpoint of every step; not to be written into."""
    folder = tmp_path_factory.mktemp("every_step")
    files = write_seeds(folder), write_held_out(folder)
    options = write_options(folder, tiny_llama, tiny_encoder, *files)
    every_step = ["--checkpoint.every_n_train_steps=1", "--checkpoint.filename={step}"]
    return fit(folder / "run", options, UNMEASURED, *every_step)


@pytest.mark.parametrize(
    "stop",
    [
        *("epoch=0", "epoch=1", "step=3"),
        *(pytest.param(stop, marks=pytest.mark.slow) for stop in ("epoch=2", "step=9")),  # the same in outer epoch 2
    ],
)
def test_a_resume_from_anywhere_ends_as_an_undisturbed_run(options, tmp_path, undisturbed, with_every_step, stop):
    whole = with_every_step if stop.startswith("step") else undisturbed
    checkpoint = whole / f"checkpoints/{stop}.ckpt"
    # a run that was killed has what the undisturbed one had on disk when the checkpoint was written
    outer_epoch = torch.load(checkpoint, weights_only=True)["IsaraDataModule"]
    cut = tmp_path / "cut"
    cut.mkdir()
    samples = (whole / "pool.jsonl").read_text().splitlines(keepends=True)
    (cut / "pool.jsonl").write_text("".join(samples[: outer_epoch["pool"]]))
    taken = 2 if outer_epoch["pool"] == len(samples) else 1
    rejected = [
        line
        for line in (whole / "rejected.jsonl").read_text().splitlines(keepends=True)
        if json.loads(line)["outer_epoch"] <= taken
    ]
    (cut / "rejected.jsonl").write_text("".join(rejected))
    fit(cut, options, UNMEASURED, f"--ckpt_path={checkpoint}")
    for name in LISTS:
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert adapter(cut) == adapter(whole) == adapter(undisturbed)


def test_a_resume_draws_the_same_dropout(options, tmp_path, tiny):
    # GPT-2 has dropout of its own
    more = [f"--model.name={tiny('gpt2')}", "--model.lora.dropout=0.1", "--data.outer_epochs=1", UNMEASURED]
    within_epochs = [
        *(
            "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
            f"--trainer.callbacks.dirpath={tmp_path}",
        ),
        *("--trainer.callbacks.every_n_train_steps=3", "--trainer.callbacks.filename={step}"),
        "--trainer.callbacks.save_top_k=-1",
    ]
    whole = fit(tmp_path / "whole", options, *more, *within_epochs)
    for stop in (whole / "checkpoints/epoch=0.ckpt", tmp_path / "step=3.ckpt"):
        cut = Path(shutil.copytree(whole, tmp_path / stop.stem))
        shutil.rmtree(cut / "adapter")
        fit(cut, options, *more, f"--ckpt_path={stop}")
        assert adapter(cut) == adapter(whole), stop


def test_a_damaged_checkpoint_is_refused(options, finished_run, capsys):
    last = finished_run / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    assert f"{last} is not a checkpoint, or damaged" in fails(
        ["fit", *options, f"--run_dir={finished_run}", "--ckpt_path=last"], capsys
    )


def test_last_continues_a_finished_run_without_doing_anything_again(options, finished_run, capsys):
    before = {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file()}
    fit(finished_run, options, "--ckpt_path=last")
    after = {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"config.yaml", "ledger.csv", "report.html"}, "the latter two count the time of this start"
    assert "outer epoch 2" in capsys.readouterr().out


def test_a_used_folder_is_refused_and_left_as_it_was(options, finished_run, capsys):
    before = {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file()}
    error = fails(["fit", *options, f"--run_dir={finished_run}", "--seed_everything=8"], capsys)
    assert "holds a run already. Add --ckpt_path last to continue it" in error
    assert {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file()} == before


def test_other_seeds_for_a_resume_are_refused_and_nothing_is_overwritten(options, finished_run, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file()}
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "Why?", "answer": "So."}\n')
    error = fails(["fit", *options, f"--run_dir={finished_run}", "--ckpt_path=last", f"--data.seeds={other}"], capsys)
    assert 'data.seeds: "8 pairs with the hash' in error
    assert 'then, "1 pairs with the hash' in error
    assert {path.name: path.read_bytes() for path in finished_run.iterdir() if path.is_file()} == before
