"""The run's model as one of plain transformers: the base, with the adapter folded in, and its tokenizer."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from isara_pl.errors import InputError, first_line
from isara_pl.export.finished_run import ADAPTER, ADAPTER_FILES, FinishedRun, RunOptions
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.plain import generation_config
from isara_pl.generation.protocol import Sampling
from isara_pl.growth.prompts import FormatName, PromptFormat, prompt_format
from isara_pl.models.adapter import MergedWeights, adapted_weights
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.models.precision import DTYPES, base_dtype
from isara_pl.models.sources import is_local
from isara_pl.run.checkpoints import WholeCheckpointIO, base_fingerprint
from isara_pl.run.files import give_usual_permissions, write_whole
from isara_pl.run.folder import CHECKPOINTS, LAST_CHECKPOINT

NF4 = (
    "The run kept the base in 4 bits (nf4). Merged here is the base as it was before, in bfloat16: answers may differ "
    "slightly from those of the run."
)


@dataclass(frozen=True)
class PlainModel:
    """A run's model as one of plain transformers, pretrained or trained.

    Attributes:
        model: The base, with the adapter folded in where it is the trained one.
        generation_config: What makes plain `generate` answer as the run's `predict` does.
        tokenizer: The run's tokenizer.
        prompt_format: How the run made text of pairs.
    """

    model: PreTrainedModel
    generation_config: GenerationConfig
    tokenizer: PreTrainedTokenizerBase
    prompt_format: PromptFormat

    def to_gpu(self) -> None:
        """Move the weights to the GPU where there is one."""
        cast(torch.nn.Module, self.model).to("cuda" if torch.cuda.is_available() else "cpu")

    def save(self, folder: Path) -> None:
        """Write model and tokenizer into a folder."""
        # transformers loads, but does not save, a config with fields that others of its fields make void
        self.model.generation_config = GenerationConfig()
        self.model.save_pretrained(folder)
        write_whole(folder / "generation_config.json", self.generation_config.to_json_string())
        for of_this_machine in ("is_local", "local_files_only"):
            self.tokenizer.init_kwargs.pop(of_this_machine, None)
        self.tokenizer.save_pretrained(folder)
        give_usual_permissions(folder)


def is_quantised(options: RunOptions) -> bool:
    """Whether the run's base was in 4 bits: merged is then the base as it was before."""
    return options.choice("model.quantization", ("none", "nf4")) == "nf4"


def dtype_of_base(options: RunOptions) -> torch.dtype:
    """Give the type of the base's weights in the run; bfloat16 where they were in 4 bits."""
    name = options.choice("model.dtype", ("auto", *DTYPES))
    if is_quantised(options):
        return torch.bfloat16
    return base_dtype(name, options.shown("trainer.precision"))


@contextmanager
def merged_model(run: FinishedRun, dtype: torch.dtype | None = None) -> Iterator[PlainModel]:
    """Load a run's model from what is on this machine, on the CPU, and fold its adapter in inside the block.

    Its weights are those that the run generated with: the sum of base and update in float32, rounded once, to the type
    of the base or to `dtype`.

    Raises:
        InputError: If the base is not here or not the run's, or the adapter is damaged.
    """
    plain = pretrained_model(run, dtype)
    name = run.options.get("model.name", str)
    adapted = _with_adapter(plain.model, run.folder / ADAPTER, name)
    if not is_quantised(run.options):
        _refuse_another_base(adapted, run.folder, name)
    _untie(adapted)
    with MergedWeights(adapted).in_use():
        yield replace(plain, model=cast(PreTrainedModel, adapted.unload()))


def pretrained_model(run: FinishedRun, dtype: torch.dtype | None = None) -> PlainModel:
    """Load a run's model as it was before training from what is on this machine, on the CPU, in the base's type.

    `dtype` is what its weights are then brought to.

    Raises:
        InputError: If it is not here.
    """
    options = run.options
    name, trust = options.get("model.name", str), options.get("model.trust_remote_code", bool)
    format_name = options.choice("data.prompt_format", get_args(FormatName))
    source = _on_this_machine(name)
    tokenizer = load_tokenizer(source, trust)
    texts = prompt_format(cast(FormatName, format_name), tokenizer)
    base = load_causal_lm(source, dtype_of_base(options), trust_remote_code=trust)
    answering = _generation_config(options, base, tokenizer, texts)
    if dtype is not None:
        cast(torch.nn.Module, base).to(dtype)
    return PlainModel(base, answering, tokenizer, texts)


def _on_this_machine(name: str) -> str:
    """Give what can be loaded without asking the hub: of a hub id, the folder in its cache."""
    if is_local(name):
        return name
    try:
        return str(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        raise InputError(
            f"model.name: {name} is neither a folder here nor in the hub's cache on this machine, and nothing is "
            f"downloaded. Do this where the run was started, or get the model first: hf download {name}"
        ) from None


def _generation_config(
    options: RunOptions, model: Any, tokenizer: PreTrainedTokenizerBase, texts: PromptFormat
) -> GenerationConfig:
    """Give what the run's `predict` tells transformers; its engine ends answers at the same tokens."""
    sampling = replace(sampling_of(options, "model.prediction_sampling"), stop_at_newline=texts.single_line)
    stops = GenerationEngine(model, tokenizer, tokens=1).stop_ids(sampling)
    return generation_config(sampling, stops, int(tokenizer.pad_token_id))


def sampling_of(options: RunOptions, name: str) -> Sampling:
    """Give how completions are drawn by an option of a run. Raises InputError if it is damaged."""
    try:
        return Sampling(**options.get(name, dict))
    except TypeError as error:
        raise InputError(f"{options.path}: `{name}`: {first_line(error)}. Restore the file from a copy") from None


def _with_adapter(base: PreTrainedModel, folder: Path, name: str) -> PeftModel:
    """Put the adapter of a folder on its base."""
    config_file, weights_file = (folder / file for file in ADAPTER_FILES)
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or config.get("peft_type") != "LORA":
            raise ValueError("not the config of a LoRA adapter")
        weights, lora = load_file(weights_file), LoraConfig.from_pretrained(str(folder))
        lora.base_model_name_or_path = None  # else peft warns that the base lies elsewhere now
        adapted = get_peft_model(base, lora)
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise InputError(
            f"{folder}: no LoRA adapter that loads on {name} ({first_line(error)}). Restore it from a copy"
        ) from None
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in expected.items()}:
        raise InputError(f"{folder}: its weights are not those of its config on {name}. Restore it from a copy")
    set_peft_model_state_dict(adapted, weights)
    return adapted.eval()


def _refuse_another_base(adapted: PeftModel, folder: Path, name: str) -> None:
    """Refuse a base whose weights are not those that the run began with, if a checkpoint tells."""
    path = folder / CHECKPOINTS / LAST_CHECKPOINT
    if not path.exists():
        return
    try:
        base = WholeCheckpointIO().load_checkpoint(path).get("base", {})
    except InputError:
        raise InputError(
            f"{path} is damaged. Restore it from a copy, or remove it to export without a check of the base"
        ) from None
    if base.get("fingerprint") != base_fingerprint(adapted):
        raise InputError(
            f"model.name: the weights of {name} are not those that this run began with ({base.get('name')}); with "
            "these the adapter would answer otherwise. Put the model of then in its place"
        )


def _untie(adapted: PeftModel) -> None:
    """Give an adapted layer weights of its own where another layer shares them, such as input and output."""
    uses = Counter(id(weight) for _, weight in adapted.named_parameters(remove_duplicate=False))
    for weight, layer in adapted_weights(adapted):
        if uses[id(weight)] > 1:
            own = layer.get_base_layer()
            own.weight = torch.nn.Parameter(own.weight.detach().clone(), requires_grad=False)
            adapted.config.tie_word_embeddings = False
