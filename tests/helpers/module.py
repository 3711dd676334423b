"""What tests of module share with others."""

from pathlib import Path
from typing import Any

from conftest import make_seeds
from lightning.pytorch import Trainer

from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.growth.prompts import prompt_format
from isara_pl.module import IsaraModule
from isara_pl.training.pairs import Batch, collate, encode_pair


def data_module(model: str, seeds_file: str, **more: Any) -> IsaraDataModule:
    """Seeds alone, no growth."""
    options: dict[str, Any] = {
        "tokenizer": model,
        "candidates_per_outer_epoch": 0,
        "outer_epochs": 1,
        "max_length": 256,
        **more,
    }
    return IsaraDataModule(seeds_file, **options)


def trainer_in(folder: Path, **more: Any) -> Trainer:
    options: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        **more,
    }
    return Trainer(
        default_root_dir=folder,
        reload_dataloaders_every_n_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def batch_of(module: IsaraModule) -> Batch:
    pairs = [encode_pair(s, prompt_format("qa", None), module.tokenizer, 256, end=True) for s in make_seeds()]
    return collate(pairs, int(module.tokenizer.pad_token_id))
