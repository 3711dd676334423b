"""An external engine inside a run: it gets the adapter of each outer epoch, and is shown to compute what we compute."""

import copy
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.generation import agreement
from isara_pl.generation.agreement import Told
from isara_pl.generation.distributions import TopLogprobs
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.protocol import ExternalEngine, Sampling
from isara_pl.generation.vllm import (
    GeneratorOptions,
    VllmEngine,
    VllmServers,
    asked_for,
    check_sampling,
)
from isara_pl.models.adapter import changes_anything
from isara_pl.models.loading import eval_mode
from isara_pl.run.files import give_usual_permissions
from isara_pl.run.folder import SERVED, run_folder
from isara_pl.run.trainer import Processes

_LARGER = 5  # times what is tolerated: by so much the trial's weights change a log-probability


class Adapted(Protocol):
    """What is asked of a module whose adapter an external engine gets."""

    tokenizer: PreTrainedTokenizerBase
    trainer: Any
    epochs_per_outer_epoch: int

    @property
    def adapted(self) -> PeftModel:
        """The base with its adapter."""

    def state_dict(self) -> dict[str, Tensor]:
        """Give the adapter's weights, whole, in every process."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> Any:
        """Take an adapter's weights over, in every process."""

    def completion_flops(self, prompt_tokens: int, new_tokens: int) -> int:
        """Give the floating-point operations of completing one prompt."""

    def pretrained(self) -> AbstractContextManager[None]:
        """Compute without the adapter inside the block."""


class Served:
    """The servers of a run, and what they were last given.

    Attributes:
        engine: What generates, inside of `growing`; None outside, where this process does so itself.
        gap: The largest difference between a server's log-probabilities and ours, when they were last compared.
    """

    def __init__(self, options: GeneratorOptions) -> None:
        self.servers = VllmServers(options)
        self.engine: ExternalEngine | None = None
        self.gap: float | None = None
        self._known: VllmEngine | None = None  # once it is shown to agree
        self._passing: tempfile.TemporaryDirectory[str] | None = None

    def condition(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Give what the texts of a run depend on here: engine, version, type of numbers, and window."""
        in_16_bits = {told.in_16_bits for told in agreement.ask_greedy(self.servers, tokenizer, None)}
        if len(in_16_bits) > 1:
            raise InputError(
                f"model.generator: some of {self.servers.names} compute in float32 and some in 16 bits; start all with "
                "the same --dtype"
            )
        numbers = "16 bits" if in_16_bits.pop() else "float32"
        return f"vllm {self.servers.version}, {numbers}, {self.servers.window} tokens"

    @property
    def window(self) -> int | None:
        """Most tokens that every server takes."""
        return self.servers.window

    @contextmanager
    def growing(
        self, module: Adapted, local: GenerationEngine, samplings: Sequence[Sampling], top: TopLogprobs | None
    ) -> Iterator[None]:
        """Generate with the servers and the adapter of now inside the block.

        All processes enter it together, each for its own part of the prompts. Where the adapter changes nothing yet,
        none is pushed.

        Args:
            module: Whose adapter it is.
            local: What tokens and ends are taken from.
            samplings: How it will be drawn, answers last.
            top: What will be kept of answers' distributions.

        Raises:
            InputError: If the servers cannot do that, or compute something else than this process.
        """
        for sampling in samplings:
            check_sampling(sampling)
        trainer, processes = module.trainer, Processes.of(module.trainer)
        parent = processes.from_first(lambda: self._folder(trainer))
        run = f"isara-{hashlib.sha256(str(parent.resolve()).encode()).hexdigest()[:8]}-"
        changes = changes_anything(module.state_dict())
        engine = self._known or VllmEngine(self.servers, local, module.completion_flops)
        if self._known is None:
            processes.from_first(lambda: agreement.check_tokens(self.servers, module.tokenizer))
            processes.from_first(lambda: _check_top(engine, samplings[-1], top))
            self._agree(module, processes, None)
            if changes or trainer.max_epochs > trainer.current_epoch + module.epochs_per_outer_epoch:
                self._try_adapter(module, processes, parent, f"{run}trial-")
            self._known = engine
        if changes:
            folder = self._pushed(module, engine, processes, parent, run)
            self._agree(module, processes, folder)
        self.engine = engine
        try:
            with nullcontext() if changes else engine.pretrained():
                yield
        finally:
            self.engine = None

    def _folder(self, trainer: Any) -> Path:
        """Give the folder for adapters on their way; `fast_dev_run` leaves no files, so it has one that passes."""
        run_dir = run_folder(trainer)
        if run_dir is None:
            self._passing = self._passing or tempfile.TemporaryDirectory(prefix="isara-")
            run_dir = Path(self._passing.name)
        return run_dir / SERVED

    def _pushed(self, module: Adapted, engine: VllmEngine, processes: Processes, parent: Path, run: str) -> Path:
        """Give the servers the adapter of now, and let them forget this run's earlier ones."""
        state, config = module.state_dict(), module.adapted.peft_config["default"]
        folder = processes.from_first(lambda: write_adapter(state, config, parent, run))
        processes.from_first(lambda: engine.push(folder))
        engine.push(folder)

        def forget_others() -> None:
            self.servers.unload(run, but=folder.name)
            for other in parent.iterdir():
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)

        processes.from_first(forget_others)
        return folder

    def _agree(self, module: Adapted, processes: Processes, folder: Path | None) -> None:
        """Compare the servers with this process, with an adapter or without, and keep the gap."""
        told: list[Told] = processes.from_first(lambda: agreement.ask_greedy(self.servers, module.tokenizer, folder))
        with eval_mode(module.adapted):
            allowed = agreement.tolerance(module.adapted, told)
            own = [agreement.own_log_probs(module.adapted, module.tokenizer, one.tokens) for one in told]
            with module.pretrained():
                without = [agreement.own_log_probs(module.adapted, module.tokenizer, one.tokens) for one in told]
        ours, which = (without, "without adapter") if folder is None else (own, "with the adapter")
        gaps = [agreement.gap(one, log_probs) for one, log_probs in zip(told, ours, strict=True)]
        for one, gap, base in zip(told, gaps, without, strict=True):
            if not gap <= allowed:
                ignored = folder is not None and agreement.gap(one, base) <= allowed
                raise InputError(
                    f"model.generator: {one.url} does not compute what this process computes {which}: a "
                    f"log-probability differs by {gap:.2g}, allowed is {allowed:g}. "
                    + (
                        "It computes as if there were no adapter; use another version of vLLM, or model.generator "
                        "builtin"
                        if ignored
                        else "Start it with the model of model.name, without quantization or other rounding; or use "
                        "model.generator builtin"
                    )
                )
        self.gap = max(gaps)
        rank_zero_info(
            f"model.generator: vllm {self._version(processes)} at {self.servers.names} {which}: a log-probability "
            f"differs from ours by {self.gap:.2g} at most; allowed is {allowed:g}"
        )

    def _version(self, processes: Processes) -> str:
        return processes.from_first(lambda: self.servers.version)

    def _try_adapter(self, module: Adapted, processes: Processes, parent: Path, prefix: str) -> None:
        """See that the servers take an adapter like this run's and compute with it, before anything is generated.

        A fresh adapter changes nothing, so for the trial its weights are random, and large enough to be noticed.
        """
        agreement.check_adapter(module.adapted)
        own = {name: value.clone() for name, value in module.state_dict().items()}
        draw = torch.Generator("cpu").manual_seed(0)
        noise = {
            name: torch.randn(value.shape, generator=draw, dtype=torch.float32).to(value)
            for name, value in own.items()
            if "lora_B" in name
        }
        try:
            for scale in (0.01 * 2**i for i in range(12)):
                module.load_state_dict({**own, **{name: scale * value for name, value in noise.items()}})
                if _is_noticed(module):
                    break
            state, config = module.state_dict(), module.adapted.peft_config["default"]
            folder = processes.from_first(lambda: write_adapter(state, config, parent, prefix))
            try:
                processes.from_first(lambda: self.servers.load(folder))
                self._agree(module, processes, folder)
                processes.from_first(lambda: self.servers.unload(prefix))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            module.load_state_dict(own)


def _is_noticed(module: Adapted) -> bool:
    """Whether the adapter changes a likely token's log-probability by much more than rounding."""
    with eval_mode(module.adapted):
        changed = agreement.own_log_probs(module.adapted, module.tokenizer, [0])
        with module.pretrained():
            base = agreement.own_log_probs(module.adapted, module.tokenizer, [0])
    best = base.argmax(dim=-1, keepdim=True)
    return bool((changed - base).gather(1, best).abs().max() > _LARGER * agreement.ROUNDED)


def _check_top(engine: VllmEngine, sampling: Sampling, top: TopLogprobs | None) -> None:
    """Refuse servers that tell fewer log-probabilities than are kept."""
    if top is None:
        return
    wanted = asked_for(top, engine.local.stop_ids(sampling), engine.vocabulary)
    try:
        engine.servers.ask_each({"prompt": [0], "add_special_tokens": False, "max_tokens": 1, "logprobs": wanted})
    except InputError as error:
        if "greater than max allowed" not in str(error):
            raise
        raise InputError(
            f"data.top_logprobs is {top.count}, for which a server has to tell {wanted} log-probabilities of each "
            f"token ({error}). Start it with --max-logprobs {wanted} or more, or lower data.top_logprobs"
        ) from None


def write_adapter(state: Mapping[str, Tensor], config: Any, parent: Path, prefix: str) -> Path:
    """Write an adapter into a new folder as peft does, and give it; its name ends with a hash of its content.

    A folder of that name holds that content already.
    """
    unfinished = parent / ".served-unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    config = copy.copy(config)
    config.inference_mode = True
    config.save_pretrained(str(unfinished))
    weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(weights, unfinished / "adapter_model.safetensors", metadata={"format": "pt"})
    content = b"".join(path.read_bytes() for path in sorted(unfinished.iterdir()))
    folder = parent / f"{prefix}{hashlib.sha256(content).hexdigest()[:12]}"
    if folder.exists():
        shutil.rmtree(unfinished)
    else:
        give_usual_permissions(unfinished)
        unfinished.rename(folder)
    return folder
