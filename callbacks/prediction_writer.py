"""Answers of `predict`, as a file."""

import json
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from isara_pl.run.folder import run_folder
from isara_pl.run.trainer import Processes

FILE = "predictions.jsonl"


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict` answers to `predictions.jsonl` in the run folder, one question a line.

    A line holds `question`, `answer` and `finished` (false where the answer ran out of tokens).
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an empty file."""
        run_dir = run_folder(trainer)
        if run_dir is not None:
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / FILE).write_text("", encoding="utf-8")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the answers of a batch, of which each process has its part."""
        part = [*zip(batch["question"], prediction["answer"], prediction["finished"], strict=True)]
        answers = Processes.of(trainer).gathered(lambda: part)
        run_dir = run_folder(trainer)
        if run_dir is None:
            return
        with (run_dir / FILE).open("a", encoding="utf-8") as file:
            for question, answer, finished in answers:
                line = {"question": question, "answer": answer, "finished": finished}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
