"""A fit with a teacher that is interrupted right after teaching, and in the middle of an epoch, ends as if it was not."""

import json

import pytest
from helpers.command_line import before_call
from helpers.teaching import Run
from lightning.pytorch.callbacks import ModelCheckpoint

from isara_pl.callbacks.adapter_export import write_adapter
from isara_pl.module import IsaraModule

BOTH = {"epochs_per_outer_epoch": 2, "objective": "sft+distill", "batch_size": 4}
ON_SEEDS = {**BOTH, "distill_on": "seeds", "candidates_per_outer_epoch": 0}
ON_FILE = {**BOTH, "distill_on": "file", "teacher": "pretrained", "outer_epochs": 2}


def stop_here() -> None:
    raise RuntimeError("stopped here")


def outcome(run: Run) -> dict[str, bytes]:
    """Give the adapter, what was taught, and the pool, as bytes."""
    write_adapter(run.module, run.folder)
    files = [run.folder / "adapter/adapter_model.safetensors", *(run.folder / "teacher").iterdir()]
    return {path.name: path.read_bytes() for path in [*files, *run.folder.glob("*.jsonl")]}


@pytest.mark.parametrize("options", [ON_SEEDS, ON_FILE], ids=["seeds", "file and pretrained"])
def test_an_interrupted_fit_ends_with_the_same_adapter_and_teacher(
    speaker, tiny_encoder, seeds_file, tmp_path, monkeypatch, options
):
    if options is ON_FILE:
        questions = tmp_path / "questions.jsonl"
        questions.write_text("".join(json.dumps({"question": f"Where is number {n}?"}) + "\n" for n in range(10)))
        options = {**options, "unlabelled_questions": str(questions)}
    whole = Run(speaker, tiny_encoder, seeds_file, tmp_path / "whole", **options)
    folder = tmp_path / "cut"

    def start(before_step: int | None) -> Run:
        """Start from the newest checkpoint, if there is one, and stop before the n-th step of this start."""
        checkpoints = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        every_step = ModelCheckpoint(folder, filename="step", every_n_train_steps=1, enable_version_counter=False)
        with monkeypatch.context() as patch:
            if before_step:
                before_call(patch, IsaraModule, "training_step", before_step, stop_here)
            return Run(
                speaker, tiny_encoder, seeds_file, folder, [every_step],
                ckpt_path=checkpoints[-1] if checkpoints else None, **options,
            )  # fmt: skip

    steps = [len(batches) for batches in whole.seen.batches]
    stops = [1, steps[0] + 2]  # right after teaching; in the middle of the second epoch
    if len(steps) == 4:
        stops.append(steps[1])  # the first step of the second outer epoch, right after teaching
    for before_step in stops:
        with pytest.raises(RuntimeError, match="stopped here"):
            start(before_step)
    ended = start(None)
    assert ended.seen.asked == [], "what a checkpoint knows is not computed twice"
    assert outcome(ended) == outcome(whole)
    assert len([*(folder / "teacher").iterdir()]) == len(steps) // 2
