"""The command that starts a vLLM server for a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from isara_pl.errors import InputError
from isara_pl.generation.vllm import ENDS_ASKED_FOR
from isara_pl.models.adapter import LoraOptions
from isara_pl.models.loading import model_source
from isara_pl.models.precision import base_dtype

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has room for
# what a server is told by its environment
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
RUNTIME_LOADING = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


@dataclass(frozen=True)
class Wanted:
    """What a run asks of a server.

    Attributes:
        model: The base, as `model.name` has it.
        dtype: Type of the base's weights.
        rank: The adapter's rank; 0 where no outer epoch is written with an adapter.
        top_logprobs: Log-probabilities that are kept of each token; 0 keeps none.
        trust_remote_code: Whether code that comes with the model may run.
    """

    model: str
    dtype: str
    rank: int
    top_logprobs: int
    trust_remote_code: bool


def wanted_by(config: Mapping[str, Any], of: str, precision: str) -> Wanted:
    """Give what a run asks of a server.

    `config` is its configuration, where options may be left out, `of` what it is called in errors, and `precision` that
    of a run whose configuration names none.
    """
    model, data, trainer = ({**(config.get(name) or {})} for name in ("model", "data", "trainer"))
    if not isinstance(model.get("name"), str):
        raise InputError(f"{of}: there is no model.name in it. Allowed: a run folder, or the configuration of a run")
    rank = (model.get("lora") or {}).get("r", LoraOptions().r)
    dtype = base_dtype(model.get("dtype", "auto"), str(trainer.get("precision") or precision))
    return Wanted(
        model=model["name"],
        dtype=str(dtype).removeprefix("torch."),
        rank=rank if data.get("outer_epochs", 2) > 1 else 0,
        top_logprobs=data.get("top_logprobs", 64) if model.get("objective", "sft") != "sft" else 0,
        trust_remote_code=bool(model.get("trust_remote_code")),
    )


def server_command(wanted: Wanted, python: str, port: int) -> tuple[dict[str, str], list[str]]:
    """Give the variables and the words of the command. It listens on this machine alone.

    Raises InputError if no server takes such an adapter, or the model does not exist.
    """
    source = model_source(wanted.model, "model.name")
    # `vllm serve` is no command of every build of vLLM; this is what it does
    words = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(source)]
    words += ["--host", "127.0.0.1", "--port", str(port), "--dtype", wanted.dtype]
    variables = {**ENVIRONMENT, **({"HF_HUB_OFFLINE": "1"} if isinstance(source, Path) else {})}
    if wanted.rank:
        rank = next((rank for rank in RANKS if rank >= wanted.rank), None)
        if rank is None:
            raise InputError(f"model.lora.r is {wanted.rank}; allowed with vLLM: at most {RANKS[-1]}")
        variables |= RUNTIME_LOADING
        # two: an adapter is loaded before the one before it goes
        words += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", "2"]
    if wanted.top_logprobs:
        words += ["--max-logprobs", str(wanted.top_logprobs + ENDS_ASKED_FOR)]
    if wanted.trust_remote_code:
        words.append("--trust-remote-code")
    if not torch.cuda.is_available():  # on CPUs seeded sampling crashes with chunked prefill
        config = AutoConfig.from_pretrained(source, trust_remote_code=wanted.trust_remote_code)
        window = getattr(config.get_text_config(), "max_position_embeddings", 4096)
        words += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(window, 4096))]
    return variables, words
