"""Projects that are there already, imitated: what they add for isara_pl is less than 40 lines, and all of it documented.

What a project is without isara_pl stands above its `# plug-in`, what it adds below.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import pytest
import torch
from helpers.documents import text_of
from helpers.evaluations import table
from lightning.pytorch import LightningModule, Trainer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

from isara_pl import IsaraDataModule, Sampling
from isara_pl.callbacks import (
    AlphaStopping,
    HarmPreferenceEvaluation,
    NearDuplicate,
    OuterEpochTable,
    TooShort,
    TruthfulnessEvaluation,
)
from isara_pl.run.checkpoints import weights_hash

ASKED: set[str] = set()


class Listening(LightningModule):
    """Notes what isara_pl asks a module for that it does not have."""

    def __getattr__(self, name: str):
        if sys._getframe(1).f_globals.get("__name__", "").startswith("isara_pl"):
            ASKED.add(name)
        return super().__getattr__(name)


# -- a tutorial of text classification, with a causal LM in place of the classifier


class TextTransformer(Listening):
    def __init__(self, model_name_or_path: str, learning_rate: float = 2e-5, warmup_steps: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = AutoModelForCausalLM.from_pretrained(model_name_or_path)
        self.tokenizer = AutoTokenizer.from_pretrained(model_name_or_path)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.hparams.learning_rate)
        steps = self.trainer.estimated_stepping_batches
        scheduler = get_linear_schedule_with_warmup(optimizer, self.hparams.warmup_steps, steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    # plug-in

    def training_step(self, batch, batch_idx):
        texts = [prompt + answer for prompt, answer in zip(batch["prompt"], batch["completion"], strict=True)]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True).to(self.device)
        labels = inputs.input_ids.masked_fill(inputs.attention_mask == 0, -100)
        loss = self.model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels).loss
        self.log("train_loss", loss, batch_size=len(texts))
        return loss

    def generate(self, prompts, sampling, seeds):
        completions = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            torch.manual_seed(seed)
            ids = self.tokenizer(prompt, return_tensors="pt").input_ids.to(self.device)
            new = self.model.generate(ids, do_sample=sampling.do_sample, max_new_tokens=sampling.max_new_tokens)
            text = self.tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)
            completions.append(SimpleNamespace(text=text, finished="\n" in text))
        return completions


# -- a plain torch GPT under a Trainer, with a tokenizer of its own


class Letters:
    """A tokenizer that knows nothing of transformers."""

    def encode(self, text: str) -> torch.Tensor:
        return torch.tensor([min(ord(letter), 127) for letter in text])

    def decode(self, ids: torch.Tensor) -> str:
        return "".join(chr(token) for token in ids.tolist())


class GPT(torch.nn.Module):
    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(block_size=block_size, n_embd=16)
        self.embed, self.place = torch.nn.Embedding(128, 16), torch.nn.Embedding(block_size, 16)
        self.block = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = torch.nn.Linear(16, 128)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = torch.nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        placed = self.embed(ids) + self.place(torch.arange(ids.shape[1]))  # an error beyond the block
        return self.head(self.block(placed, src_mask=mask, is_causal=True))


class LitGPT(Listening):
    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.model = GPT(block_size)
        self.tokenizer = Letters()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def validation_step(self, batch, batch_idx):
        pass

    # plug-in

    def training_step(self, batch, batch_idx):
        losses = self.score(batch["prompt"], batch["completion"], of_training=True)
        loss = -torch.stack(losses).mean()
        self.log("train_loss", loss, batch_size=len(losses))
        return loss

    def generate(self, prompts, sampling, seeds):
        completions = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            drawing = torch.Generator().manual_seed(seed)
            ids = self.tokenizer.encode(prompt)
            for _ in range(sampling.max_new_tokens):
                probabilities = self.model(ids[None])[0, -1].softmax(-1)
                ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=drawing)])
            completions.append(SimpleNamespace(text=self.tokenizer.decode(ids)[len(prompt) :], finished=False))
        return completions

    def score(self, prompts, answers, of_training=False):
        sums = []
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = self.tokenizer.encode(prompt + answer)
            likely = self.model(ids[None])[0, :-1].log_softmax(-1).gather(1, ids[1:, None])
            log_probability = likely[len(self.tokenizer.encode(prompt)) - 1 :].sum()
            sums.append(log_probability if of_training else float(log_probability))
        return sums


# -- a template of hydra's kind: main instantiates everything from one nested config


class DictConfig(Mapping):
    """A mapping that is no dict, all the way down, as OmegaConf's is."""

    def __init__(self, content: dict) -> None:
        self._content = content

    def __getitem__(self, key: str):
        value = self._content[key]
        return DictConfig(value) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


def instantiate(config: Mapping, **more):
    module, _, name = config["_target_"].rpartition(".")
    options = {key: value for key, value in config.items() if key != "_target_"}
    return getattr(sys.modules[module], name)(**options, **more)


def hydra_main(config: DictConfig) -> Trainer:
    # plug-in
    data = instantiate(config["data"])
    model = instantiate(config["model"])
    callbacks = [instantiate(one) for one in config["callbacks"].values()]
    trainer = instantiate(config["trainer"], callbacks=callbacks)
    trainer.validate(model, datamodule=data)
    trainer.fit(model, datamodule=data)
    return trainer


def undocumented() -> set[str]:
    """Give what the modules of these projects were asked for and docs/LIGHTNING.md does not name."""
    assert ASKED
    return {name for name in ASKED if not name.startswith("_")} - set(
        re.findall(r"`(\w+)", text_of("docs/LIGHTNING.md"))
    )


def plug_in(project) -> list[str]:
    return inspect.getsource(project).partition("# plug-in\n")[2].strip().splitlines()


@pytest.mark.parametrize("project", [TextTransformer, LitGPT, hydra_main])
def test_a_project_adds_less_than_forty_lines(project):
    assert 5 < len(plug_in(project)) < 40


def trainer_in(folder, *callbacks) -> Trainer:
    return Trainer(
        max_epochs=2,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks],
    )


def grown(folder) -> list[int]:
    rows = [json.loads(line) for name in ("pool", "rejected") for line in (folder / f"{name}.jsonl").open()]
    return sorted({row["outer_epoch"] for row in rows})


SHORT = {"max_new_tokens": 12}


def data(seeds: str, encoder: str, **more) -> IsaraDataModule:
    options = {"candidates_per_outer_epoch": 6, "outer_epochs": 2, "demonstrations": 4, "batch_size": 4, **more}
    return IsaraDataModule(seeds, encoder=encoder, question_sampling=SHORT, answer_sampling=SHORT, **options)


def test_a_tutorial_of_text_classification(seeds_file, tiny_encoder, tiny_llama, tmp_path):
    module = TextTransformer(tiny_llama)
    trainer = trainer_in(tmp_path / "run", TooShort(), NearDuplicate(), AlphaStopping(0.0))
    trainer.fit(module, datamodule=data(seeds_file, tiny_encoder))
    assert grown(tmp_path / "run") == [0, 1, 2]
    assert trainer.callback_metrics["train_loss"] > 0
    assert trainer.current_epoch == 2
    assert undocumented() == set()


@pytest.mark.parametrize("block_size", [512, 170])
def test_a_plain_gpt_under_a_trainer(seeds_file, held_out_file, pairs_file, tiny_encoder, tmp_path, block_size):
    module = LitGPT(block_size)
    callbacks = [OuterEpochTable(), TruthfulnessEvaluation(max_new_tokens=4), HarmPreferenceEvaluation(pairs_file)]
    trainer = trainer_in(tmp_path / "run", AlphaStopping(0.0), *callbacks)
    given = data(seeds_file, tiny_encoder, held_out=held_out_file)
    trainer.validate(module, datamodule=given, verbose=False)
    trainer.fit(module, datamodule=given)
    assert grown(tmp_path / "run") == [0, 1, 2]
    rows = table(tmp_path / "run")
    assert [row["outer_epoch"] for row in rows] == ["0", "1", "2"]
    assert all(0 < float(row["mc2"]) < 1 and float(row["harmless_nll"]) > 0 for row in rows)
    assert float(rows[2]["best_answer_nll"]) < float(rows[0]["best_answer_nll"])
    lines = [json.loads(line) for line in (tmp_path / "run/evaluation/truthfulness.jsonl").open()]
    assert lines[0]["answer_tokens"] == len(" Thing 0 is blue.")  # letters
    assert undocumented() == set()


def test_a_template_that_instantiates_from_a_nested_config(
    seeds_file, held_out_file, tiny_encoder, tiny_llama, tmp_path
):
    config = {
        "data": {
            "_target_": "isara_pl.IsaraDataModule",
            "seeds": seeds_file,
            "held_out": held_out_file,
            "encoder": tiny_encoder,
            "candidates_per_outer_epoch": 4,
            "outer_epochs": 2,
            "demonstrations": 2,
            "question_sampling": {"max_new_tokens": 8, "generation_config": {"min_p": 0.05}},
            "answer_sampling": {"max_new_tokens": 8, "do_sample": False},
        },
        "model": {
            "_target_": "isara_pl.IsaraModule",
            "name": tiny_llama,
            "lora": {"r": 4},
            "prediction_sampling": {"max_new_tokens": 5},
        },
        "callbacks": {
            "alpha": {"_target_": "isara_pl.callbacks.AlphaStopping", "alpha": 0.0},
            "table": {"_target_": "isara_pl.callbacks.OuterEpochTable"},
            "export": {"_target_": "isara_pl.callbacks.AdapterExport"},
        },
        "trainer": {
            "_target_": "lightning.pytorch.Trainer",
            "max_epochs": 2,
            "reload_dataloaders_every_n_epochs": 1,
            "default_root_dir": tmp_path / "run",
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "num_sanity_val_steps": 0,
        },
    }
    trainer = hydra_main(DictConfig(config))
    settings = trainer.datamodule.settings
    assert settings.question_sampling == Sampling(max_new_tokens=8, generation_config={"min_p": 0.05})
    assert settings.answer_sampling == Sampling(max_new_tokens=8, do_sample=False)
    assert (trainer.lightning_module.lora.r, trainer.lightning_module.prediction_sampling.max_new_tokens) == (4, 5)
    assert grown(tmp_path / "run") == [0, 1, 2]
    rows = table(tmp_path / "run")
    assert [row["outer_epoch"] for row in rows if row["answer_nll"]] == ["0", "1", "2"]  # the tokenizer is the module's
    exported = load_file(tmp_path / "run/adapter/adapter_model.safetensors")
    assert weights_hash(exported) == rows[2]["weights"], "what is exported is what was measured"
