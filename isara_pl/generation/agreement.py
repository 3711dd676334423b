"""Whether servers compute what this process computes: shown with token ids and log-probabilities, not assumed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.generation.vllm import VllmServers, by_id
from isara_pl.models.precision import computes_exactly
from isara_pl.models.tokens import encode, encode_prompt

# words, numbers and lines; letters outside of ASCII; code
TEXTS = (
    "Question: Why is the sky blue on 12 of 365 days?\nAnswer: It isn't; 1,000.5 is more than 7!\n\n",
    "Größe, déjà vu, naïve – 你好, мир, שלום 🙂 …",
    "def f(x):\n    return {'a': x**2,\t\"b\": [x]}  # <tag/>",
)
PROMPT = "Question: What is the largest ocean on Earth?\nAnswer:"
TOKENS = 8  # that are compared
# between log-probabilities of the same token: measured were up to 2e-5 in float32, and up to .1 where one of both
# computes in 16 bits
EXACT, ROUNDED = 1e-3, 0.5
_STEP = 2.0**-12  # between neighbouring 16-bit numbers of the size of likely tokens' logits, or less


@dataclass(frozen=True)
class Told:
    """What a server found at the tokens that it took for the likeliest ones behind a prompt."""

    url: str
    tokens: list[int]
    log_probs: list[float]
    in_16_bits: bool


def check_tokens(servers: VllmServers, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse servers that make other tokens of a text."""
    for client in servers.clients:
        for text in TEXTS:
            body = {"model": servers.base, "prompt": text, "add_special_tokens": False}
            theirs = client.ask("POST", "/tokenize", body)["tokens"]
            ours = encode(tokenizer, text, add_special_tokens=False)
            if theirs != ours:
                raise InputError(
                    f"model.generator: {client.url} makes other tokens of {text!r} ({theirs[:8]} …) than this run's "
                    f"tokenizer ({ours[:8]} …): it serves another model. Start it with the model of model.name"
                )


def ask_greedy(servers: VllmServers, tokenizer: PreTrainedTokenizerBase, adapter: Path | None) -> list[Told]:
    """Let every server continue a prompt by its likeliest tokens."""
    body = {
        "prompt": encode_prompt(tokenizer, PROMPT), "add_special_tokens": False, "max_tokens": TOKENS,
        "ignore_eos": True, "temperature": 0.0, "repetition_penalty": 1.0, "logprobs": 5,
        "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "return_token_ids": True, "return_tokens_as_token_ids": True,
    }  # fmt: skip
    told = []
    for client, choice in zip(servers.clients, servers.ask_each(body, adapter), strict=True):
        places = [by_id(place) for place in choice["logprobs"]["top_logprobs"]]
        tokens = choice["token_ids"]
        log_probs = [place[token] for place, token in zip(places, tokens, strict=True)]
        told.append(Told(client.url, tokens, log_probs, _in_16_bits([[*place.values()] for place in places])))
    return told


def _in_16_bits(places: Sequence[Sequence[float]]) -> bool:
    """Whether log-probabilities come from logits of 16 bits: then their differences are multiples of a small step."""
    steps = torch.tensor([value - max(place) for place in places for value in place], dtype=torch.float64) / _STEP
    return bool(((steps - steps.round()).abs() < 0.05).all())


def own_log_probs(model: Any, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> Tensor:
    """Give our own log-probabilities at the places of tokens behind the prompt, of shape (tokens, vocabulary)."""
    prompt = encode_prompt(tokenizer, PROMPT)
    ids = torch.tensor([[*prompt, *tokens]], device=model.device)
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(dim=-1).cpu()


def tolerance(model: Any, told: Sequence[Told]) -> float:
    """Give by how much log-probabilities may differ."""
    exactly = computes_exactly(model) and model.dtype == torch.float32
    return EXACT if exactly and not any(one.in_16_bits for one in told) else ROUNDED


def gap(told: Told, own: Tensor) -> float:
    """Give the largest difference between a server's log-probabilities and ours, and from our likeliest tokens."""
    ours = own[torch.arange(len(told.tokens)), torch.tensor(told.tokens)]
    from_ours = (ours - torch.tensor(told.log_probs)).abs().max()
    return max(float(from_ours), float((own.max(dim=-1).values - ours).max()))


def check_adapter(model: PeftModel) -> None:
    """Refuse an adapter of which a server would ignore a part."""
    config = model.peft_config["default"]
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    adapted = [
        name.rsplit(".", 1)[-1]
        for name, part in model.named_modules()
        if isinstance(part, LoraLayer) and any(part is end for end in ends)
    ]
    if adapted:
        raise InputError(
            f"model.lora.targets: {' and '.join(adapted)} belongs to the input or output of the model, where a vLLM "
            "server ignores an adapter. Leave it out, or use model.generator builtin"
        )
    if config.modules_to_save or config.target_parameters:
        raise InputError(
            "model.lora: an adapter that replaces whole layers, or adapts fused experts, is not one that a vLLM server "
            "takes. Give names of linear layers in targets, or use model.generator builtin"
        )
