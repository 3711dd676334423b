"""What tests of datamodule share with others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from conftest import FakeGenerator
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample


class KeepFirst(Callback):
    """Accepts the first so many candidates of each outer epoch."""

    def __init__(self, *counts: int) -> None:
        self.counts = counts

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        number = int(candidate.id.split("-")[1])
        keep = number < self.counts[candidate.outer_epoch - 1]
        return Verdict(number, None if keep else "late")


class Plain(LightningModule):
    """Knows nothing of isara_pl; remembers what it was trained on and when it was asked to generate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.dropout = torch.nn.Dropout()
        self.fake = FakeGenerator()
        self.trained: dict[int, list[tuple[str, str, str]]] = {}
        self.asked: list[tuple[int, bool]] = []

    def generate(self, prompts: Any, sampling: Any, seeds: Any) -> Any:
        self.asked.append((self.trainer.current_epoch, self.dropout.training))
        return self.fake.generate(prompts, sampling, seeds)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        pairs = zip(batch["id"], batch["question"], batch["answer"], strict=True)
        self.trained.setdefault(self.current_epoch, []).extend(pairs)
        return (self.weight - len(batch["id"])).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def data_module(seeds_file: str, encoder: str, **more: Any) -> IsaraDataModule:
    options: dict[str, Any] = {
        "candidates_per_outer_epoch": 4,
        "outer_epochs": 2,
        "demonstrations": 2,
        "batch_size": 3,
        **more,
    }
    return IsaraDataModule(seeds_file, encoder=encoder, **options)


def trainer_in(folder: Path, epochs: int, callbacks: Sequence[Callback] = (), **more: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        reload_dataloaders_every_n_epochs=more.pop("reload_dataloaders_every_n_epochs", 1),
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
