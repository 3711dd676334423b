"""A run whose candidates come from elsewhere, as from a server: python -m helpers.sharded_run FOLDER SPEAKER DATA KIND [more]."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything

from isara_pl import IsaraDataModule, IsaraModule
from isara_pl.callbacks import AdapterExport, AlphaStopping, RunCheckpoint, TruthfulnessEvaluation
from isara_pl.generation.distributions import TopLogprobs
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.models.adapter import LoraOptions
from isara_pl.run.checkpoints import WholeCheckpointIO
from isara_pl.strategies import AdapterFSDP

WORDS = ("blue", "sky", "warm", "sea", "stone", "green", "light", "cold", "river", "hill")


class Elsewhere(IsaraModule):
    """Writes words that follow from the seed alone, without the model."""

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], top: TopLogprobs | None = None
    ) -> list[Completion]:
        """Give some words for each prompt."""
        return [Completion(" ".join(WORDS[seed // 10**place % 10] for place in range(6)), True) for seed in seeds]

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Merge nothing."""
        yield


def main(folder: str, speaker: str, files: str, kind: str, options: str) -> None:
    """Run `fit` in one process, or in two with ddp or AdapterFSDP, and write what the trainer logged."""
    more: dict[str, Any] = json.loads(options)
    strategies: dict[str, Any] = {"one": "auto", "ddp": "ddp", "sharded": AdapterFSDP()}
    seed_everything(7)
    trainer = Trainer(
        accelerator="cpu",
        devices=1 if kind == "one" else 2,
        strategy=strategies[kind],
        precision=more.get("precision", "32-true"),
        gradient_clip_val=more.get("clip"),
        accumulate_grad_batches=more.get("accumulate", 1),
        max_epochs=4,
        max_steps=more.get("max_steps", -1),
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=folder,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[WholeCheckpointIO()],
        callbacks=[
            AlphaStopping(alpha=0.0),
            TruthfulnessEvaluation(f"{files}/items.jsonl"),
            AdapterExport(),
            RunCheckpoint(dirpath=f"{folder}/checkpoints", filename="{epoch}", save_last=True, save_top_k=-1),
        ],
    )
    data = IsaraDataModule(
        seeds=f"{files}/seeds.jsonl",
        held_out=f"{files}/held_out.jsonl",
        tokenizer=speaker,
        encoder=f"{files}/encoder",
        candidates_per_outer_epoch=6,
        candidates_per_batch=3,
        epochs_per_outer_epoch=2,
        outer_epochs=2,
        demonstrations=2,
        batch_size=4,
        max_length=256,
        objective=more.get("objective", "sft"),
        seed=7,
    )
    module = Elsewhere(
        speaker,
        lora=LoraOptions(r=4, dropout=more.get("dropout", 0.0)),
        learning_rate=0.01,
        epochs_per_outer_epoch=2,
        start_from=more.get("start_from", "latest"),
        objective=more.get("objective", "sft"),
        evaluation_precision=more.get("evaluation_precision", "float32"),
        seed=7,
    )
    if more.get("measured_first"):
        trainer.validate(module, datamodule=data, verbose=False)
    last = Path(folder, "checkpoints/last.ckpt")
    trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None)
    if trainer.is_global_zero:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        sharded = sum(weight.numel() for weight in module.parameters() if hasattr(weight, "full_tensor"))
        Path(folder, "said.json").write_text(json.dumps({**figures, "sharded": sharded}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
