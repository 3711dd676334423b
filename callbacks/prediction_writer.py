"""Answers of `predict`, as a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter


class PredictionWriter(BasePredictionWriter):
    """Writes what `predict` answers to `predictions.jsonl` in the run folder, one question a line.

    A line holds `question`, `answer` and `finished` (false where the answer ran out of tokens).
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an empty file."""
        if not trainer.fast_dev_run:
            path = self.path(trainer)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")

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
        """Append the answers of a batch."""
        if trainer.fast_dev_run:
            return
        with self.path(trainer).open("a", encoding="utf-8") as file:
            for sample, completion in zip(batch["samples"], prediction, strict=True):
                line = {"question": sample.question, "answer": completion.text.strip(), "finished": completion.finished}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    @staticmethod
    def path(trainer: Trainer) -> Path:
        """Give the file of a run."""
        return Path(trainer.default_root_dir) / "predictions.jsonl"
