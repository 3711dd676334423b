"""What tests of teaching share with others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from helpers.distillation import ALL, dense, plain
from helpers.module import trainer_in
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.generation.distributions import TokenDistributions
from isara_pl.generation.protocol import Sampling
from isara_pl.growth.samples import Sample
from isara_pl.models.adapter import LoraOptions
from isara_pl.module import IsaraModule
from isara_pl.training.pairs import Batch, encode_pair
from isara_pl.training.teacher_files import TeacherFiles

SHORT = Sampling(max_new_tokens=6)


class Seen(Callback):
    """Remembers the weights and the batches of every epoch, and what the module was asked."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.batches: list[list[Batch]] = []
        self.written: list[str] = []
        self.asked: list[str] = []

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        generate, distributions = pl_module.generate, pl_module.distributions

        def generating(prompts: list[str], *more: Any) -> Any:
            self.written += prompts
            return generate(prompts, *more)

        def asking(prompts: list[str], *more: Any) -> Any:
            self.asked += prompts
            return distributions(prompts, *more)

        pl_module.generate, pl_module.distributions = generating, asking

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        self.batches.append([])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if not self.batches:  # a resume in the middle of an epoch does not begin it
            self.batches.append([])
        self.batches[-1].append(batch)


class Run:
    """A fit of seconds: its module, its data, what was seen and what is on disk."""

    def __init__(
        self,
        model: str,
        encoder: str,
        seeds: str,
        folder: Path,
        callbacks: Sequence[Callback] = (),
        ckpt_path: Path | None = None,
        precision: str = "32-true",
        **options: Any,
    ) -> None:
        objective = options.get("objective", "distill")
        data: dict[str, Any] = {
            "tokenizer": model, "encoder": encoder, "candidates_per_outer_epoch": 5, "candidates_per_batch": 3,
            "outer_epochs": 1, "demonstrations": 3, "question_sampling": SHORT, "answer_sampling": SHORT,
            "objective": objective, "top_logprobs": ALL, "max_length": 256,
        }  # fmt: skip
        self.data = IsaraDataModule(seeds, **{**data, **options})
        epochs = self.data.epochs_per_outer_epoch
        self.module = IsaraModule(
            model, LoraOptions(r=4), learning_rate=0.05, objective=objective, epochs_per_outer_epoch=epochs
        )
        self.seen, self.folder = Seen(), folder
        checkpoint = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        trainer = trainer_in(
            folder,
            max_epochs=self.data.outer_epochs * epochs,
            callbacks=[self.seen, *callbacks, checkpoint],
            enable_checkpointing=True,
            precision=precision,
        )
        trainer.fit(self.module, self.data, ckpt_path=ckpt_path)

    @property
    def samples(self) -> list[Sample]:
        assert self.data.pool
        return self.data.pool.samples

    @property
    def taught(self) -> dict[str, TokenDistributions]:
        return TeacherFiles(self.folder, [sample.id for sample in self.samples]).known

    def assert_taught(self, sample: Sample, weights: dict[str, torch.Tensor], demonstrations: Sequence[Sample]) -> None:
        """See that what is on disk for a sample is what plain PyTorch finds with these weights and demonstrations."""
        module, tokenizer = self.module, self.module.tokenizer
        module.load_state_dict(weights)
        module.adapted.eval()
        pair = encode_pair(sample, self.data.prompt_format, tokenizer, 256, end=True)
        answer = pair.input_ids[pair.prompt_length : -1]
        prompt = tokenizer(self.data.prompt_format.answer_prompt(sample.question, demonstrations)).input_ids
        assert self.data.lessons
        stops = module._engine.stop_ids(self.data.lessons.sampling)
        exact = plain(module.adapted, prompt, answer, stops, tokenizer.vocab["<|end|>"])
        kept = self.taught[sample.id]
        assert len(kept) == len(answer) + 1
        torch.testing.assert_close(dense(kept, exact.shape[1]), exact, rtol=1e-2, atol=1e-4)

    def demonstrations_of(self, sample: Sample) -> list[Sample]:
        known = {each.id: each for each in self.samples}
        return [known[name] for name in sample.answer_demonstrations]

    def trained(self, epoch: int) -> dict[str, tuple[bool, bool]]:
        """Give for each sample of an epoch whether its answer was learned, and whether it was taught."""
        found = {}
        for batch in self.seen.batches[epoch]:
            taught = batch.get("taught")
            for row, name in enumerate(batch["sample_ids"]):
                labels = batch["labels"][row] != -100
                if taught is None:
                    found[name] = True, False
                else:
                    assert not taught["tokens"][row].any() or torch.equal(taught["tokens"][row], labels)
                    found[name] = bool(taught["learned"][row]), bool(taught["tokens"][row].any())
        return found
