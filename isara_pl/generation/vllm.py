"""vLLM servers as the engine of generation: one request for each prompt, token ids both ways, adapters by name."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from isara_pl.errors import InputError
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.http import Client, RefusalError, checked_url, each
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.generation.writing import Written
from isara_pl.models.tokens import encode_prompt
from isara_pl.run.randomness import derive_seed
from isara_pl.run.stages import count

ENDS_ASKED_FOR = (
    64  # log-probabilities beside the k that are kept: tokens that end an answer may be among the likeliest
)
LOWEST = -9999.0  # how a server writes the log-probability of what cannot come
SERVE = "Start it as `isara-pl serve RUN` prints it"


@dataclass(frozen=True)
class GeneratorOptions:
    """What writes the candidates of outer epochs.

    Attributes:
        engine: `builtin` is this project's own engine, in this process; `vllm` are vLLM servers that you start with the
            same model. `--model.generator vllm` is short for it. All figures come from this process in any case.
        urls: Addresses of the servers, such as http://127.0.0.1:8000; each takes an equal part.
        served_model_name: Name of the model there; null takes the only one.
        parallel: Requests under way at once on each server.
        timeout: Seconds after which a request counts as lost and is sent again.
        patience: Seconds for which a server may be away before the run ends.
        api_key_env: Environment variable that holds the key of the servers; null sends none.

    Raises:
        InputError: If a value cannot be used.
    """

    engine: Literal["builtin", "vllm"] = "builtin"
    urls: list[str] | str = field(default_factory=list)
    served_model_name: str | None = None
    parallel: int = 64
    timeout: float = 600.0
    patience: float = 300.0
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        for name, allowed, right in (
            ("parallel", "at least 1", self.parallel >= 1),
            ("timeout", "above 0", self.timeout > 0),
            ("patience", "at least 0", self.patience >= 0),
        ):
            if not right:
                raise InputError(f"model.generator.{name} is {getattr(self, name)}; allowed: {allowed}")
        if self.engine == "vllm" and not self.addresses:
            raise InputError(
                "model.generator is vllm, which needs the addresses of its servers: --model.generator.urls "
                "http://127.0.0.1:8000"
            )
        if self.engine == "builtin" and self.addresses:
            raise InputError("model.generator.urls are given, but model.generator is builtin; use vllm, or no urls")

    @property
    def addresses(self) -> list[str]:
        """The servers' addresses, each once."""
        given = [self.urls] if isinstance(self.urls, str) else self.urls
        return list(dict.fromkeys(checked_url(url) for url in given if url))

    @property
    def key(self) -> str | None:
        """The servers' key. Raises InputError if the variable that should hold it is not set."""
        if self.api_key_env is None:
            return None
        if not os.environ.get(self.api_key_env):
            raise InputError(
                f"model.generator.api_key_env is {self.api_key_env}, but the environment has no such variable"
            )
        return os.environ[self.api_key_env]


class VllmServers:
    """The servers that a run asks, all with the same model."""

    def __init__(self, options: GeneratorOptions) -> None:
        self.options = options
        self.clients = [Client(url, options.timeout, options.patience, options.key) for url in options.addresses]

    @property
    def names(self) -> str:
        """The servers' addresses, for messages."""
        return ", ".join(client.url for client in self.clients)

    @cached_property
    def base(self) -> str:
        """The name of the base model there. Raises InputError if a server has none of that name."""
        wanted = self.options.served_model_name
        for client in self.clients:
            bases = [model["id"] for model in self._models(client) if not model.get("parent")]
            if wanted is None and len(bases) == 1:
                wanted = bases[0]
            if wanted not in bases:
                which = f"not {wanted}" if wanted else "of which model.generator.served_model_name must name one"
                raise InputError(f"model.generator: {client.url} serves {', '.join(bases)}, {which}")
        return str(wanted)

    @cached_property
    def version(self) -> str:
        """The servers' version. Raises InputError if they have several."""
        found = {client.url: str(client.ask("GET", "/version")["version"]) for client in self.clients}
        if len(set(found.values())) > 1:
            shown = ", ".join(f"{url} {version}" for url, version in found.items())
            raise InputError(f"model.generator: the servers have several versions of vLLM ({shown}); use one")
        return found[self.clients[0].url]

    @cached_property
    def window(self) -> int | None:
        """Most tokens, prompt and new ones, that every server takes (`--max-model-len`); None where none tells."""
        models = [model for client in self.clients for model in self._models(client) if model["id"] == self.base]
        return min((model["max_model_len"] for model in models if model.get("max_model_len")), default=None)

    @staticmethod
    def _models(client: Client) -> list[dict[str, Any]]:
        models: list[dict[str, Any]] = client.ask("GET", "/v1/models")["data"]
        return models

    def complete(self, bodies: Sequence[dict[str, Any]], adapter: Path | None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Give the choice that answers each request, with its number, as they come.

        `adapter` is loaded again where a server was started anew and does not know it any more.
        """
        size = -(-len(bodies) // len(self.clients))  # neighbours go to one server: they share contexts
        order = sorted(range(len(bodies)), key=lambda number: number % size)
        loading = threading.Lock()

        def call(place: int, stop: threading.Event) -> dict[str, Any]:
            client, body = self.clients[order[place] // size], bodies[order[place]]
            while True:
                try:
                    choice: dict[str, Any] = client.ask("POST", "/v1/completions", body, stop=stop)["choices"][0]
                    return choice
                except RefusalError as refusal:
                    if refusal.status != 404 or adapter is None or body["model"] != adapter.name:
                        raise
                with loading:
                    self._load(client, adapter)

        for place, choice in each(call, len(bodies), self.options.parallel * len(self.clients)):
            yield order[place], choice

    def ask_each(self, body: Mapping[str, Any], adapter: Path | None = None) -> list[dict[str, Any]]:
        """Give every server's choice for one request."""
        repeated = [{"model": adapter.name if adapter else self.base, **body} for _ in self.clients]
        answers = dict(self.complete(repeated, adapter))
        return [answers[number] for number in range(len(repeated))]

    def load(self, adapter: Path) -> None:
        """Load an adapter's folder into every server that does not know it, under the folder's name.

        A name is never used for other weights: a server keeps what it computed under it.
        """
        for client in self.clients:
            self._load(client, adapter)

    def _load(self, client: Client, adapter: Path) -> None:
        if any(model["id"] == adapter.name for model in self._models(client)):
            return
        try:
            body = {"lora_name": adapter.name, "lora_path": str(adapter.resolve())}
            # vLLM's 500 for an adapter that it refuses; a worker that dies meanwhile has one as well
            client.ask("POST", "/v1/load_lora_adapter", body, final="Worker failed with error")
        except RefusalError as refusal:
            if "already been loaded" not in refusal.message:  # by another process of this run
                raise InputError(_why_not_loaded(client.url, adapter, refusal)) from None

    def unload(self, prefix: str, but: str | None = None) -> None:
        """Let the servers forget adapters whose names begin so, but one."""
        for client in self.clients:
            for model in self._models(client):
                if model["id"].startswith(prefix) and model["id"] != but:
                    try:
                        client.ask("POST", "/v1/unload_lora_adapter", {"lora_name": model["id"]})
                    except RefusalError as refusal:
                        if refusal.status != 404:  # another process has done it
                            raise


def _why_not_loaded(url: str, adapter: Path, refusal: RefusalError) -> str:
    """Say why a server did not take an adapter, and what to do."""
    start, message = f"model.generator: {url}", refusal.message
    if "No adapter found" in message:
        return (
            f"{start} cannot read {adapter.resolve()}, where this run puts its adapter. Give --run_dir a folder that "
            "the server's machine and user can read under the same path"
        )
    if "max_lora_rank" in message:
        return f"{start} refuses the adapter: {message}. {SERVE}, or lower model.lora.r"
    if "LoRA is not enabled" in message or refusal.status in (404, 405):
        return (
            f"{start} takes no adapters while it runs. {SERVE}: with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its "
            "environment and --enable-lora"
        )
    return f"{start} refuses the adapter: {message}"


class VllmEngine:
    """Completes prompts on vLLM servers, with the adapter that was pushed last.

    What is drawn for a prompt follows from the server's model, the prompt, the sampling and the prompt's own seed, as
    far as rounding lets it; other random numbers than the built-in engine's decide. Tokens, ends and texts are those of
    `local`, whose model is never called here. `flops` gives the operations of a prompt of so many tokens and so many
    new ones, which are counted as if each were completed by itself.
    """

    def __init__(self, servers: VllmServers, local: GenerationEngine, flops: Callable[[int, int], int]) -> None:
        self.servers = servers
        self.local = local
        self.flops = flops
        self._adapter: Path | None = None

    def push(self, folder: Path) -> None:
        """Generate with the adapter in a folder from now on. Its name must be new wherever its content is."""
        self.servers.load(folder)
        self._adapter = folder

    @contextmanager
    def pretrained(self) -> Iterator[None]:
        """Generate without any adapter inside the block."""
        before, self._adapter = self._adapter, None
        try:
            yield
        finally:
            self._adapter = before

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], top: TopLogprobs | None = None
    ) -> list[Completion]:
        """Complete each prompt.

        Raises InputError if a prompt and its new tokens do not fit into the servers' window, or a server refuses.
        """
        check_sampling(sampling)
        stops, vocabulary = self.local.stop_ids(sampling), self.vocabulary
        encoded = [encode_prompt(self.local.tokenizer, prompt) for prompt in prompts]
        self._check_window(encoded, sampling)
        common = self._common(sampling, [token for token in stops if token < vocabulary], top)
        bodies = [
            {**common, "prompt": ids, "seed": derive_seed(seed, "tokens")}
            for ids, seed in zip(encoded, seeds, strict=True)
        ]
        found: dict[int, Completion] = {}
        for number, choice in self.servers.complete(bodies, self._adapter):
            ids = choice["token_ids"]
            places = choice["logprobs"]["top_logprobs"] if top is not None else []
            kept = folded([by_id(place) for place in places], stops, top, vocabulary) if top is not None else None
            found[number] = self.local.completion(Written(ids, kept), set(stops))
            prompt_tokens = len(encoded[number])
            count(1, prompt_tokens, generated_tokens=len(ids), flops=self.flops(prompt_tokens, len(ids)))
        return [found[number] for number in range(len(prompts))]

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has outputs for; a tokenizer may know more."""
        return int(self.local.model.config.get_text_config().vocab_size)

    def _common(self, sampling: Sampling, stops: list[int], top: TopLogprobs | None) -> dict[str, Any]:
        """Give what all requests of a batch say. Whatever is left out, a server takes from the model's own files."""
        body: dict[str, Any] = {
            "model": self._adapter.name if self._adapter else self.servers.base,
            "add_special_tokens": False,
            "max_tokens": sampling.max_new_tokens,
            "min_tokens": 1,  # as with the built-in engine nothing that ends a completion comes first
            "ignore_eos": True,  # it is among ours
            "stop_token_ids": stops,
            "temperature": sampling.temperature if sampling.do_sample else 0.0,
            "top_p": sampling.top_p if sampling.do_sample else 1.0,
            "top_k": sampling.top_k if sampling.do_sample else 0,
            "min_p": 0.0,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "return_token_ids": True,
        }
        if top is not None:
            wanted = asked_for(top, stops, self.vocabulary)
            body |= {"logprobs": wanted, "return_tokens_as_token_ids": True}
        return body

    def _check_window(self, encoded: Sequence[Sequence[int]], sampling: Sampling) -> None:
        """Refuse what does not fit: a server would give fewer tokens and say nothing."""
        if not all(encoded):
            raise InputError("a prompt without any token cannot be completed")
        longest, window = max(map(len, encoded), default=0), self.servers.window
        if window is not None and longest + sampling.max_new_tokens > window:
            raise InputError(
                f"a prompt of {longest} tokens and {sampling.max_new_tokens} new ones do not fit into the {window} "
                "that the server takes. Lower max_new_tokens, shorten the text, or start it with a larger "
                "--max-model-len"
            )


def check_sampling(sampling: Sampling) -> None:
    """Refuse what only the built-in engine has."""
    beside = [name for name in ("no_repeat_ngram_size", "generation_config") if getattr(sampling, name)]
    beside += ["num_beams"] if sampling.num_beams > 1 else []
    if beside:
        raise InputError(
            f"sampling.{beside[0]} is not to be had with model.generator vllm. Leave it out, or use builtin"
        )


def asked_for(top: TopLogprobs, stops: Sequence[int], vocabulary: int) -> int:
    """Give how many log-probabilities a server is asked for, so that k are left when the ends are one."""
    return min(top.count + min(len(stops), ENDS_ASKED_FOR), vocabulary)


def by_id(place: Mapping[str, float]) -> dict[int, float]:
    """Give a server's log-probabilities of a place by tokens."""
    return {
        int(name.removeprefix("token_id:")): value if value > LOWEST else -float("inf") for name, value in place.items()
    }


def folded(
    places: Sequence[Mapping[int, float]], stops: Sequence[int], top: TopLogprobs, vocabulary: int
) -> TokenDistributions:
    """Give what the built-in engine keeps, from the likeliest tokens that a server told.

    All that ends an answer counts as `top.end_id`, and has no mass at the first place. Ends that a server did not tell,
    since each is less likely than all that it told, are part of the rest.
    """
    ends, kept = {*stops, top.end_id}, min(top.count, vocabulary)
    ids = torch.zeros(len(places), kept, dtype=torch.int32)
    log_probs = torch.full((len(places), kept), -torch.inf)
    rest = torch.zeros(len(places))
    for row, place in enumerate(places):
        known = torch.tensor([*place.values()], dtype=torch.float64)
        ending = torch.tensor([token in ends for token in place])
        mass = {token: value for token, value in place.items() if token not in ends}
        others = 1 - known.exp().sum().clamp(max=1)  # of all that was not told
        if row == 0:
            left = torch.log1p(-known[ending].exp().sum().clamp(max=1 - 1e-12))
            mass = {token: value - left.item() for token, value in mass.items()}
            others = others / left.exp()
        elif ending.any():
            mass[top.end_id] = known[ending].logsumexp(0).item()
        likeliest = sorted(mass.items(), key=lambda one: -one[1])
        # those whose mass is elsewhere now come last, as with the built-in engine
        likeliest += [(token, -float("inf")) for token in place if token not in mass]
        chosen, others_told = likeliest[:kept], torch.tensor([value for _, value in likeliest[kept:]])
        ids[row, : len(chosen)] = torch.tensor([token for token, _ in chosen], dtype=torch.int32)
        log_probs[row, : len(chosen)] = torch.tensor([value for _, value in chosen])
        everything = len(place) >= vocabulary
        rest[row] = others_told.exp().sum() + (0 if everything else others)
    return TokenDistributions(ids, log_probs, rest)
