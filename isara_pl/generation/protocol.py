"""What the loop asks of a model: prompts in, completions out."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from transformers import GenerationConfig

from isara_pl.errors import InputError
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs

# one completion for a prompt, as token ids, ended by what the prompt format says
_DECIDED_HERE = (
    "num_return_sequences", "return_dict_in_generate", "stop_strings", "max_length",
    "eos_token_id", "pad_token_id", "begin_suppress_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        max_new_tokens: Most tokens of a completion.
        do_sample: Draw tokens at random; false takes the likeliest.
        temperature: Divides the logits before drawing; below 1 is more careful.
        top_p: Draw from the likeliest tokens that together have this probability; 1 is off.
        top_k: Draw from so many likeliest tokens; 0 is off.
        num_beams: Beams of beam search, or of beam sampling where do_sample is on; 1 is off.
        repetition_penalty: Divides the logits of tokens already seen; 1 is off.
        no_repeat_ngram_size: No n-gram of this length twice in prompt and completion; 0 is off.
        generation_config: Further fields of transformers.GenerationConfig, e.g. {min_p: 0.05}.
        stop_at_newline: Whether a newline ends a completion. The prompt format decides it.

    Raises:
        InputError: If a number is outside its range, or a field of generation_config does not exist.
    """

    max_new_tokens: int = 64
    do_sample: bool = True
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    num_beams: int = 1
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    generation_config: dict[str, Any] = field(default_factory=dict)
    stop_at_newline: bool = False

    def __post_init__(self) -> None:
        for name, allowed, right in (
            ("max_new_tokens", "at least 1", self.max_new_tokens >= 1),
            ("temperature", "above 0", self.temperature > 0),
            ("top_p", "above 0 and at most 1", 0 < self.top_p <= 1),
            ("top_k", "at least 0", self.top_k >= 0),
            ("num_beams", "at least 1", self.num_beams >= 1),
            ("repetition_penalty", "above 0", self.repetition_penalty > 0),
            ("no_repeat_ngram_size", "at least 0", self.no_repeat_ngram_size >= 0),
        ):
            if not right:
                raise InputError(f"sampling: {name} is {getattr(self, name)}; allowed: {allowed}")
        for name in self.generation_config:
            decided = name in _DECIDED_HERE or hasattr(self, name)
            if decided or name not in vars(GenerationConfig()):
                why = "is an option of sampling itself or set by the loop" if decided else "does not exist"
                raise InputError(
                    f"sampling.generation_config: {name} {why}. Allowed: other fields of transformers.GenerationConfig"
                )

    @property
    def is_plain(self) -> bool:
        """Whether each token follows from the model's distribution alone: no beams, no penalties."""
        return (
            self.num_beams == 1
            and self.repetition_penalty == 1
            and self.no_repeat_ngram_size == 0
            and not self.generation_config
        )


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
        text: The text, without the token that ended it.
        finished: Whether the model ended it, rather than running out of tokens.
        ids: Its tokens, without the one that ended it; empty where the generator does not tell.
        distributions: What was kept of the distribution of each token, the one that ended it included; None where
            nothing was.
    """

    text: str
    finished: bool
    ids: tuple[int, ...] = ()
    distributions: TokenDistributions | None = None


class TextGenerator(Protocol):
    """Anything that completes prompts; any LightningModule with this method can drive the loop."""

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> Sequence[Completion]:
        """Give one completion for each prompt, in the same order.

        Args:
            prompts: Texts to complete.
            sampling: How to draw.
            seeds: One for each prompt; what is drawn for a prompt should follow from its own seed.
        """


@runtime_checkable
class Teacher(Protocol):
    """A TextGenerator that also tells how likely it finds each token, as distillation needs it."""

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], top: TopLogprobs | None = None
    ) -> Sequence[Completion]:
        """Complete as a TextGenerator does, and keep of the tokens' distributions what `top` says, if it can."""

    def distributions(
        self, prompts: Sequence[str], answers: Sequence[list[int]], sampling: Sampling, top: TopLogprobs
    ) -> Sequence[TokenDistributions]:
        """Give for each prompt the distributions at its answer's tokens, and behind the last one."""


class ExternalEngine(Protocol):
    """What generates outside of this process, and is given the adapter of each outer epoch as a folder.

    It is entered where `IsaraModule.merged` prepares the weights of this process (`IsaraModule.growing`).
    """

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], top: TopLogprobs | None = None
    ) -> list[Completion]:
        """Complete as a Teacher does."""

    def push(self, folder: Path) -> None:
        """Generate with the adapter in a folder, as peft writes it, from now on.

        Called in every process of a run, in the first one before the others. The folder's name is new for every
        content.
        """

    def pretrained(self) -> AbstractContextManager[None]:
        """Generate without any adapter inside the block."""


def completions_of(
    generator: TextGenerator,
    prompts: Sequence[str],
    sampling: Sampling,
    seeds: Sequence[int],
    top: TopLogprobs | None = None,
) -> Sequence[Completion]:
    """Complete prompts with a generator that may be anyone's, and count what it gives.

    Only a Teacher is asked for distributions. Raises InputError if it gives another number of completions than prompts.
    """
    if top is not None and isinstance(generator, Teacher):
        completions = generator.generate(prompts, sampling, seeds, top)
    else:
        completions = generator.generate(prompts, sampling, seeds)
    if len(completions) != len(prompts):
        raise InputError(
            f"{type(generator).__name__}.generate gave {len(completions)} completions for {len(prompts)} prompts; "
            "it must give one for each, in their order"
        )
    return completions
