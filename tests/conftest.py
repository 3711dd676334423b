"""Tiny random models of real architectures, saved and loaded by the real code."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.command_line import before_call
from lightning.pytorch import Callback, Trainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (  # type: ignore[attr-defined]  # BertTokenizerFast is made when it is asked for
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from isara_pl import IsaraDataModule, IsaraModule
from isara_pl.callbacks import OuterEpochTable, TruthfulnessEvaluation
from isara_pl.cli.main import main
from isara_pl.generation.decoding import Batch
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.growth.outer_epoch import OuterEpoch
from isara_pl.growth.samples import Sample

TEXTS = [
    "Question: Why is the sky blue on a clear day?\nAnswer: Air scatters blue light more than red light.",
    "Question: Do goldfish forget everything after three seconds?\nAnswer: No, they remember things for months.",
    "Question: What is the largest ocean on Earth?\nAnswer: The Pacific Ocean is the largest ocean.",
    "BEGINNING OF CONVERSATION: USER: Hello there ASSISTANT: Hello, how can I help you today?",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|turn|>' + message['role'] + '\n' + message['content'] + '<|end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)
SPOKEN = 0.8  # by which words and ends are likelier than other tokens
ARCHITECTURES = ("llama", "opt", "gpt2", "qwen2")
FUSED_EXPERTS = ("mixtral", "qwen3_moe")


def make_tokenizer(eos: str | None = "<|end|>", pad: str | None = "<|pad|>") -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|pad|>", "<|turn|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, pad_token=pad, chat_template=CHAT_TEMPLATE, model_max_length=512
    )


def tiny_config(architecture: str, vocabulary: int, window: int = 512) -> PretrainedConfig:
    small: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ends: dict[str, Any] = {"eos_token_id": 0, "pad_token_id": 1, "bos_token_id": 0}
    if architecture == "llama":
        return LlamaConfig(**small, **ends, intermediate_size=48, max_position_embeddings=window)
    if architecture == "qwen2":
        return Qwen2Config(**small, **ends, intermediate_size=48, num_key_value_heads=1, max_position_embeddings=window)
    if architecture in ("mixtral", "qwen3_moe"):
        experts = {"num_local_experts": 4} if architecture == "mixtral" else {"num_experts": 4}
        more = {"intermediate_size": 48, "moe_intermediate_size": 24, "num_experts_per_tok": 2}
        heads = {"num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": window}
        return AutoConfig.for_model(architecture, **small, **ends, **experts, **more, **heads)
    if architecture == "opt":
        return OPTConfig(**small, **ends, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=window)
    return GPT2Config(**ends, vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=window)


def make_model(folder: Path, architecture: str = "llama", window: int = 512, seed: int = 0) -> str:
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    # larger than the default spread: what a random model says then depends on its prompt
    config = tiny_config(architecture, len(tokenizer), window)
    config.initializer_range = config.init_std = 0.2
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def make_speaker(folder: Path) -> str:
    """Make a tiny Llama that says words of its tokenizer and ends after some, so that texts and tokens fit together."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = tiny_config("llama", len(tokenizer))
    config.initializer_range, config.mlp_bias = 0.2, True
    model = AutoModelForCausalLM.from_config(config)
    texts = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    words = [token for token, text in enumerate(texts) if text[:1] == " " and text[1:].isalpha() and len(text) > 2]
    with torch.no_grad():
        # what the last layer adds to all that it computes, these tokens are likely by
        model.model.layers[-1].mlp.down_proj.bias.fill_(SPOKEN)
        model.lm_head.weight[words] += SPOKEN
        model.lm_head.weight[tokenizer.eos_token_id] += 1.3 * SPOKEN
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_speaker(tmp_path_factory.mktemp("speaker"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Give the folder of a tiny model of an architecture."""
    made: dict[str, str] = {}

    def give(architecture: str = "llama") -> str:
        if architecture not in made:
            made[architecture] = make_model(tmp_path_factory.mktemp(architecture), architecture)
        return made[architecture]

    return give


@pytest.fixture(scope="session")
def tiny_llama(tiny: Callable[[str], str]) -> str:
    return tiny("llama")


def make_encoder(folder: Path) -> str:
    """Make a tiny BERT as a sentence encoder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    folder.mkdir(exist_ok=True)
    words = sorted({word for text in TEXTS for word in text.lower().replace("?", " ?").split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)))
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(dict.fromkeys(vocabulary)),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=64)
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling, Normalize()]).save(str(folder / "encoder"))
    return str(folder / "encoder")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the folder of a tiny BERT as a sentence encoder."""
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def make_seeds(count: int = 8) -> list[Sample]:
    things = ["sky", "sea", "moon", "sun", "wind", "rain", "snow", "fog", "ice", "fire", "sand", "rock"]
    return [
        Sample(
            id=f"seed-{i:05d}",
            question=f"Why is the {things[i % len(things)]} like that on day number {i}?",
            answer=f"Because {things[i % len(things)]} scatters light in its own way {i}.",
        )
        for i in range(count)
    ]


def write_seeds(folder: Path) -> str:
    path = folder / "seeds.jsonl"
    path.write_text(
        "".join(json.dumps({"question": s.question, "answer": s.answer}) + "\n" for s in make_seeds()), encoding="utf-8"
    )
    return str(path)


@pytest.fixture
def seeds_file(tmp_path: Path) -> str:
    return write_seeds(tmp_path)


def write_held_out(folder: Path) -> str:
    path = folder / "held_out.jsonl"
    rows = [
        {
            "question": f"What colour is thing number {i}?",
            "answer": f"Thing {i} is blue.",
            "correct_answers": [f"Thing {i} is blue.", f"It is blue like thing {i}."],
            "incorrect_answers": [f"Thing {i} is red.", "It has no colour at all."],
        }
        for i in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def held_out_file(tmp_path: Path) -> str:
    return write_held_out(tmp_path)


class FakeGenerator:
    """Writes numbered questions and answers; remembers what it was asked."""

    def __init__(self, finished: bool = True) -> None:
        self.prompts: list[str] = []
        self.samplings: list[Sampling] = []
        self.seeds: list[int] = []
        self.finished = finished

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        self.prompts.extend(prompts)
        self.samplings.append(sampling)
        self.seeds.extend(seeds)
        texts = []
        for seed, prompt in zip(seeds, prompts, strict=True):
            if prompt.endswith("Question:"):
                texts.append(f" Is {seed % 99991} a number that people like?")
            else:
                texts.append(f" Yes, {seed % 99991} is liked by many people.")
        return [Completion(text, self.finished) for text in texts]


@pytest.fixture
def pairs_file(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"question": f"How is it with number {i}?", "chosen": f"No, not {i}.", "rejected": f"Yes {i}!"}
        for i in range(5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run_config(
    model: str, encoder: str, seeds: str, held_out: str | None, callbacks: list[Any], **of_data: Any
) -> dict[str, Any]:
    """Give the config of a run of seconds: 2 outer epochs."""
    return {
        "trainer": {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False, "callbacks": callbacks},
        "model": {"name": model, "lora": {"r": 4}},
        "data": {
            "seeds": seeds,
            "held_out": held_out,
            "encoder": encoder,
            "outer_epochs": 2,
            "demonstrations": 2,
            "question_sampling": {"max_new_tokens": 8},
            "answer_sampling": {"max_new_tokens": 8},
            "max_length": 256,
            **of_data,
        },
        "held_out_answers": {"max_new_tokens": 8},
    }


@pytest.fixture
def parts(
    tiny_llama: str, tiny_encoder: str, seeds_file: str, held_out_file: str, tmp_path: Path
) -> Callable[..., tuple[IsaraModule, IsaraDataModule, Trainer]]:
    """Give module, data and trainer, as people use them without the command line."""

    def give(
        outer_epochs: int = 2, callbacks: Sequence[Callback] = (), **more: Any
    ) -> tuple[IsaraModule, IsaraDataModule, Trainer]:
        data = IsaraDataModule(
            seeds_file,
            held_out=held_out_file,
            tokenizer=tiny_llama,
            encoder=tiny_encoder,
            candidates_per_outer_epoch=3,
            outer_epochs=outer_epochs,
            demonstrations=2,
            question_sampling=Sampling(max_new_tokens=8),
            answer_sampling=Sampling(max_new_tokens=8),
        )
        trainer = Trainer(
            default_root_dir=tmp_path / "run",
            max_epochs=outer_epochs,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            callbacks=[OuterEpochTable(), TruthfulnessEvaluation(max_new_tokens=0), *callbacks],
            **more,
        )
        return IsaraModule(tiny_llama, learning_rate=0.02), data, trainer

    return give


@pytest.fixture
def run(tiny_llama: str, tiny_encoder: str, seeds_file: str, held_out_file: str, tmp_path: Path) -> Callable[..., Path]:
    """Start the CLI with callbacks, and give the run folder."""

    def start(
        subcommand: str, callbacks: list[Any], *more: str, held_out: str | None = held_out_file, name: str = "run"
    ) -> Path:
        named = [{"class_path": f"isara_pl.callbacks.{kind}", "init_args": options} for kind, options in callbacks]
        config = run_config(tiny_llama, tiny_encoder, seeds_file, held_out, named, candidates_per_outer_epoch=4)
        config["model"]["learning_rate"] = 0.02
        config |= {"run_dir": str(tmp_path / name), "alpha_stopping": {"alpha": 0}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        main([subcommand, f"--config={tmp_path / f'{name}.yaml'}", *more])
        return tmp_path / name

    return start


def write_options(folder: Path, model: str, encoder: str, seeds: str, held_out: str) -> list[str]:
    """Write the config of a run of seconds: 2 outer epochs of 2 epochs, 6 candidates each; give the arguments."""
    callbacks = [
        {"class_path": "isara_pl.callbacks.NearDuplicate"},
        {"class_path": "isara_pl.callbacks.TruthfulnessEvaluation", "init_args": {"max_new_tokens": 8}},
    ]
    of_data = {"candidates_per_batch": 4, "epochs_per_outer_epoch": 2, "batch_size": 4}
    config = run_config(model, encoder, seeds, held_out, callbacks, candidates_per_outer_epoch=6, **of_data)
    config["model"]["learning_rate"] = 0.01
    config |= {"seed_everything": 7, "alpha_stopping": {"alpha": 0.1}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return [f"--config={folder / 'run.yaml'}"]


@pytest.fixture
def options(tiny_llama: str, tiny_encoder: str, seeds_file: str, held_out_file: str, tmp_path: Path) -> list[str]:
    return write_options(tmp_path, tiny_llama, tiny_encoder, seeds_file, held_out_file)


@pytest.fixture(scope="session")
def undisturbed(tiny_llama: str, tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a whole run with what `options` gives; not to be written into."""
    folder = tmp_path_factory.mktemp("undisturbed")
    files = write_seeds(folder), write_held_out(folder)
    main(["fit", *write_options(folder, tiny_llama, tiny_encoder, *files), f"--run_dir={folder / 'run'}"])
    return folder / "run"


@pytest.fixture(scope="session")
def cut_runs(tiny_llama: str, tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Give the folder of a run of `options` that was cut before it judged its so manieth batch of candidates."""
    made: dict[int, Path] = {}

    def stop() -> None:
        raise KeyboardInterrupt

    def give(number: int) -> Path:
        if number not in made:
            folder = tmp_path_factory.mktemp(f"cut_{number}")
            files = write_seeds(folder), write_held_out(folder)
            options = write_options(folder, tiny_llama, tiny_encoder, *files)
            with pytest.MonkeyPatch.context() as patch:
                before_call(patch, OuterEpoch, "_judge", number, stop)
                with pytest.raises(SystemExit):
                    main(["fit", *options, f"--run_dir={folder / 'run'}"])
            made[number] = folder / "run"
        return made[number]

    return give


@pytest.fixture
def cut_run(cut_runs: Callable[[int], Path], tmp_path: Path) -> Callable[[int], Path]:
    """Give a copy of what `cut_runs` gives, to be gone on with."""
    return lambda number: Path(shutil.copytree(cut_runs(number), tmp_path / "run"))


@pytest.fixture
def finished_run(undisturbed: Path, tmp_path: Path) -> Path:
    """Give a copy of `undisturbed` to be written into."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def hold_at_most(prompts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine meet a device whose memory does not suffice for more prompts at once."""
    own = Batch.prefill

    def small_memory(self: Batch) -> Any:
        if len(self.prompts) > prompts:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(self)

    monkeypatch.setattr(Batch, "prefill", small_memory)
