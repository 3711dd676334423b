"""Loading a causal LM and its tokenizer, from wherever they come, and whether the model is what it seems."""

import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_utilities.core.imports import RequirementCache
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from isara_pl.errors import InputError, first_line
from isara_pl.models.hub import go_offline_where_unreachable
from isara_pl.models.sources import SOURCES, is_local, resolve_path
from isara_pl.models.tokens import encode
from isara_pl.run.files import give_usual_permissions
from isara_pl.run.memory import is_out_of_memory

_COMPLETE = "Take a checkpoint of the whole causal LM, as its `save_pretrained` writes it"

Quantization = Literal["none", "nf4"]
WINDOWS = ("max_position_embeddings", "n_positions", "block_size")  # what configs call it: transformers, GPT-2, litgpt
_CACHES = ("cache", "past_key_values")  # what models call their keys and values: transformers from 5.24 on, and before
_OLDEST_BITSANDBYTES = "0.47"  # pyproject.toml says why


def _without_gguf(gguf: Path) -> Path:
    """Give a folder with the dequantised weights of a .gguf file, made once and kept in the user's cache.

    Reading the converted copy takes a tenth of a second, dequantising takes many.
    """
    digest = hashlib.sha256()
    with gguf.open("rb") as file:
        for block in iter(lambda: file.read(1 << 22), b""):
            digest.update(block)
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "isara_pl" / f"{gguf.stem}-{digest.hexdigest()[:16]}"
        if folder.exists():
            return folder
        if importlib.util.find_spec("gguf") is None:
            raise InputError("a .gguf file needs the package gguf. Install it: pip install 'isara_pl[quickstart]'")
        folder.parent.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
    except (OSError, RuntimeError) as error:  # known now, not after a minute of converting
        raise InputError(
            f"a .gguf file is converted once, into the user's cache, and nothing can be written there "
            f"({first_line(error)}). Set XDG_CACHE_HOME to a folder of your own"
        ) from error
    try:
        _convert(gguf, own / folder.name)
        (own / folder.name).rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Write the dequantised weights of a .gguf file, and its tokenizer, as `from_pretrained` reads them."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    model, report = loaded
    check_complete(model, report, gguf.name, "model.name", _COMPLETE)
    # transformers marks the model as quantised and then refuses to save it, although its weights
    # are plain fp32 by now
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    # transformers before 5.23 gives such a tokenizer its BOS as EOS; the config has what the file says
    for role in ("bos", "eos", "pad"):
        token_id = getattr(model.config, f"{role}_token_id", None)
        if token_id is not None:
            setattr(tokenizer, f"{role}_token", tokenizer.convert_ids_to_tokens(token_id))
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"the converted copy of {gguf} could not be written ({first_line(error)}). Make room in the user's cache, "
            "or set XDG_CACHE_HOME to another folder"
        ) from error
    give_usual_permissions(folder)


def model_source(name: str, option: str) -> str | Path:
    """Give what `from_pretrained` takes: a folder that exists, or a hub id."""
    if not is_local(name):
        go_offline_where_unreachable()
        return name
    path = resolve_path(name, option)
    source = _without_gguf(path) if path.suffix == ".gguf" else path
    if not source.is_dir():
        raise InputError(f"{option}: {name} is a file, but not a .gguf file. {SOURCES}")
    adapter = source / "adapter_config.json"
    if option == "model.name" and adapter.exists():  # a tokenizer may well lie beside an adapter
        raise _is_adapter(name, json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path"))
    return source


def _is_adapter(name: str, base: object) -> InputError:
    return InputError(
        f"model.name: {name} is an adapter (of {base}), not a model: a fresh adapter would take its place. "
        "Give its base, or merge the two first: `PeftModel.from_pretrained(base, adapter).merge_and_unload()`; of a "
        "run of yours `python -m isara_pl export RUN --to DIR` does it, in DIR/model"
    )


@contextmanager
def one_clear_error(name: str, option: str) -> Iterator[None]:
    """Turn what loaders raise, pages long, into one line that names the option.

    Raises InputError instead of what a loader raised.
    """
    try:
        yield
    except Exception as error:  # of files that are damaged, and of packages that are missing, there are many types
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        where = "in the folder" if is_local(name) else "here, nor got from the hub,"
        raise InputError(
            f"{option}: no model that loads {where} under {name!r} ({first_line(error)}) {SOURCES}"
        ) from error


def load_tokenizer(name: str, trust_remote_code: bool = False, option: str = "model.name") -> PreTrainedTokenizerBase:
    """Load a tokenizer; where it has no padding token, the end-of-sequence token pads.

    Padding with EOS is safe because every mask here comes from lengths, never from `ids != pad`.

    Args:
        name: Hub id, folder, .gguf file or `package://module/path`.
        trust_remote_code: Whether code that comes with the model may run.
        option: The option that the name was given to, for the error's text.

    Raises:
        InputError: If it cannot be loaded, or has no end-of-sequence token.
    """
    with one_clear_error(name, option):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model_source(name, option), local_files_only=is_local(name), trust_remote_code=trust_remote_code
        )
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{option}: the tokenizer of {name} has no end-of-sequence token, so answers could not end. "
            "Set `eos_token` in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal_lm(
    name: str,
    dtype: torch.dtype = torch.float32,
    quantization: Quantization = "none",
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a causal LM for training: no cache of a previous run, weights in `dtype`.

    Args:
        name: Hub id, folder, .gguf file or `package://module/path`.
        dtype: Type of the weights.
        quantization: `nf4` keeps the weights in 4 bits (QLoRA); needs a CUDA GPU and bitsandbytes.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        InputError: If the model cannot be loaded, is an adapter, is not causal, or its files do not hold all of its
            weights.
    """
    # None would wipe what a quantised folder says of itself
    quantised = {"quantization_config": _nf4(dtype)} if quantization == "nf4" else {}
    with one_clear_error(name, "model.name"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            model_source(name, "model.name"),
            local_files_only=is_local(name),
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told by name below
            **quantised,
        )
    model: PreTrainedModel
    model, report = loaded
    if getattr(model, "_hf_peft_config_loaded", False):  # of the hub, where only loading tells
        raise _is_adapter(name, next(iter(model.peft_config.values())).base_model_name_or_path)
    check_complete(model, report, name, "model.name", _COMPLETE)
    with one_clear_error(name, "model.name"):  # some architectures do not compute in every type
        check_causal(model, name)
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)
    return model


def _contiguous(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Lay out what the output layer is given: on a slice torch would copy a frozen weight for every row."""
    return (inputs[0].contiguous(), *inputs[1:])


@contextmanager
def only_logits_of(model: Any, wanted: torch.Tensor) -> Iterator[None]:
    """Run the model's output layer on the wanted positions only: inside, logits are (1, wanted, vocabulary).

    With a large vocabulary and a small model the output layer is a good part of the work. What a model does to its
    logits afterwards (a scale, a soft cap) stays as it is. `wanted` is a mask of shape (batch, length).
    """

    def chosen(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][wanted][None], *inputs[1:])

    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"model.name: {type(model).__name__} does not tell its output layer; use another model")
    hook = head.register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode inside the block, and every part of it back into its own mode after."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def context_window(model: Any) -> int | None:
    """Give the most tokens that a model can attend to; None where it has no config that tells."""
    config = getattr(model, "config", None)
    known = (getattr(config, name, None) for name in WINDOWS)
    return next((window for window in known if isinstance(window, int) and window > 0), None)


def cache_name(names: Container[str]) -> str:
    """Give what a model calls its keys and values, among the names of what it takes or gives."""
    return next((name for name in _CACHES if name in names), _CACHES[-1])


def _nf4(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig  # only here: it looks for bitsandbytes when imported

    try:
        found = version("bitsandbytes")
    except PackageNotFoundError:
        found = None
    if not torch.cuda.is_available() or found is None:
        raise InputError(
            "model.quantization: nf4 needs a CUDA GPU and the package bitsandbytes "
            "(pip install 'isara_pl[gpu]'). Use `none` here"
        )
    if not RequirementCache(f"bitsandbytes>={_OLDEST_BITSANDBYTES}"):
        raise InputError(
            f"model.quantization: nf4 needs bitsandbytes {_OLDEST_BITSANDBYTES} or newer, and {found} is installed, in "
            "which the first figures in float32 would slow down the whole run. pip install -U 'isara_pl[gpu]'"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


# saved beside the weights by older releases of transformers: causal masks, rotary frequencies, positions
_COMPUTED = re.compile(r"(attn|attention)\.(masked_)?bias$|\.causal_mask$|rotary_emb\.inv_freq$|(^|\.)position_ids$")
_SHOWN = 3
_LEAK = 0.1  # of the logits' spread; rounding is far below, and attention to later tokens above, once it is trained


def check_complete(model: Any, report: Mapping[str, Any], name: str, option: str, remedy: str) -> None:
    """Refuse a model whose files do not hold all of its weights, or hold some that it has no place for.

    transformers fills what is missing with random numbers. Another head beside the model, such as the value head of a
    reinforcement learner, changes nothing that is computed here. `report` is what `from_pretrained(...,
    output_loading_info=True, ignore_mismatched_sizes=True)` told of the model, `remedy` what to do, a sentence without
    its full stop. Raises InputError if weights are missing, of another shape, or not the model's.
    """
    unexpected = [key for key in report["unexpected_keys"] if not _COMPUTED.search(key) and _is_inside(model, key)]
    faults = (
        ("missing", report["missing_keys"]),
        ("of another shape", [key for key, *_ in report["mismatched_keys"]]),
        ("unexpected", unexpected),
    )
    told = [f"{what} {_named(keys)}" for what, keys in faults if keys]
    if told:
        raise InputError(
            f"{option}: the weights of {name} are not those of {type(model).__name__}: {'; '.join(told)}. {remedy}"
        )


def check_causal(model: Any, name: str) -> None:
    """Refuse a model whose logits depend on tokens that come later: it would read the answers.

    Raises InputError if it is none.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 8, 9, 10, 11]], device=model.device) % rows
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, :4].float()
    if (logits[0] - logits[1]).abs().max() > _LEAK * logits.std():
        raise InputError(
            f"model.name: {name} is no causal model: what {type(model).__name__} says of a token depends on later "
            "ones, so it would read the answers. Take a model that was trained to continue texts, as GPT-2 was"
        )


def check_tokens(tokenizer: PreTrainedTokenizerBase, text: str, rows: int) -> None:
    """Refuse a tokenizer that gives ids for which the model has no embedding.

    Special tokens that are only listed do no harm: content that spells them is encoded as plain text. `text` is a
    prompt with its answer, in the format of the run; `rows` is how many embeddings the model has. Raises InputError if
    there are such ids in the text, among those that begin, end or pad, or among ordinary tokens.
    """
    used = {*encode(tokenizer, text), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    added = tokenizer.added_tokens_decoder
    misfits = sorted(
        id
        for id in tokenizer.get_vocab().values()
        if id >= rows and (id in used or not (id in added and added[id].special))
    )
    if misfits:
        raise InputError(
            f"model.name: the model has {rows} embeddings, and none for tokens of its tokenizer: "
            f"{_named([f'{tokenizer.convert_ids_to_tokens(id)} (id {id})' for id in misfits])}. Save the model after "
            "`model.resize_token_embeddings(len(tokenizer))`, or take these tokens out of its tokenizer"
        )


def _is_inside(model: Any, key: str) -> bool:
    """Whether a weight belongs to a part that the model has, or to the encoder that a decoder was trained with."""
    prefix = f"{model.base_model_prefix}."
    parts = {"encoder", *(name for part in (model, model.base_model) for name, _ in part.named_children())}
    return key.removeprefix(prefix).partition(".")[0] in parts


def _named(keys: Iterable[str]) -> str:
    names = sorted(keys)
    further = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{further}"


def quieten() -> None:
    """Silence what is said in every run and helps nobody."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns whenever a process forks
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # nothing phones home
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # neither does a logger that says it is offline
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # a bar for each load
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are lists of ids: workers would only cost
        ".*Checkpoint directory .* exists and is not empty.*",  # so it is after every resume
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*Total length of `list` across ranks is zero.*",  # no held-out pairs, which is allowed
        ".*LightningCLI's args parameter is intended.*",  # `main` takes both: as a function, and for help
        ".*LeafSpec.*",  # a deprecation inside lightning 2.6 with torch 2.13
        # the newer name is not in every transformers that is admitted
        ".*`(is_gradient_checkpointing|gradient_checkpointing_enable)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
    # an advertisement, and the number of epochs at the end, which nobody has given
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(said in record.getMessage() for said in ("litlogger", "stopped: `max_epochs="))
    )
