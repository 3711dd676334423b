"""The engine: from prompts to completions, in batches that fit a budget of tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.generation import plain, writing
from isara_pl.generation.decoding import PREFILL_TOKENS, why_not_in_rows
from isara_pl.generation.distributions import TokenDistributions, TopLogprobs
from isara_pl.generation.kv_cache import sharing_order
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.generation.step_graphs import StepGraphs
from isara_pl.generation.writing import Written
from isara_pl.models.adapter import is_sharded
from isara_pl.models.loading import cache_name, context_window
from isara_pl.models.tokens import encode_prompt, end_of_turn
from isara_pl.run.memory import is_out_of_memory
from isara_pl.run.notices import rank_zero_warn

T = TypeVar("T")
# measuring may happen in float32 or beside a judge, so it has less memory than growing
_Work = Literal["growing", "measuring"]

GenerationTokens = int | Literal["auto"]
ON_A_CPU = 32768  # tokens: more at once is hardly faster there, and shares the memory with everything else
_SHARE = 0.8  # of the free memory: the allocator leaves gaps
_LOGIT_BYTES = 48  # of a row, for each token of the vocabulary: float32 logits and what drawing makes of them
_HIDDEN_STATES = 24  # as wide as the model, of each token of a prefill: what a layer computes at once


@dataclass(frozen=True)
class Budget:
    """How much may be generated for at once."""

    tokens: int  # most tokens of all rows
    row: int = 0  # how many tokens' memory a row takes beside that of its own tokens

    def admits(self, rows: int, length: int) -> bool:
        """Whether it holds so many rows. `length` is the tokens of each, prompt and new ones."""
        return self._taken(rows, length) <= self.tokens

    def halved(self, rows: int, length: int) -> "Budget":
        """Give what is left to try where the memory did not suffice.

        It did not for so many rows of `length` tokens each.
        """
        return Budget(min(self.tokens, self._taken(rows, length)) // 2, self.row)

    def _taken(self, rows: int, length: int) -> int:
        return rows * (length + self.row)


def budget_of(model: Any, tokens: GenerationTokens) -> Budget:
    """Give the budget that a model begins with.

    `auto` asks the device for its free memory, and the model, in eval mode, for the keys and values of one token.
    """
    if tokens != "auto":
        return Budget(tokens)
    if is_sharded(model):  # whose processes have to make the same batches, and may have unlike free memory
        return Budget(ON_A_CPU)
    state = _bytes_of_a_token(model)
    free = _free_bytes(model.device)
    if not state or free is None:  # recurrent models keep no keys and values
        return Budget(ON_A_CPU)
    text = model.config.get_text_config()
    prefill = PREFILL_TOKENS * _HIDDEN_STATES * text.hidden_size * model.dtype.itemsize
    return Budget(_rounded(max(int(_SHARE * free - prefill) // state, 1)), _LOGIT_BYTES * text.vocab_size // state)


def _bytes_of_a_token(model: Any) -> int:
    """Give the size of the keys and values of one token, found by computing one.

    Where several heads share some, transformers repeats those of one layer at a time for its attention.
    """
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    given = model(input_ids=ids, use_cache=True)
    states = given.get(cache_name(given))
    heads = getattr(model.config.get_text_config(), "num_attention_heads", None)
    kept = repeated = 0
    for layer in getattr(states, "layers", []):
        pair = [state for name in ("keys", "values") if (state := getattr(layer, name, None)) is not None]
        size = sum(state.numel() * state.element_size() for state in pair)
        kept += size
        sharing = heads // pair[0].shape[1] if pair and isinstance(heads, int) else 1
        repeated = max(repeated, size * sharing if sharing > 1 else 0)
    return kept + repeated


def _free_bytes(device: torch.device) -> int | None:
    """Give what this process may still take; None where that is not asked for."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _rounded(tokens: int) -> int:
    """Round down to three binary digits, so that a little more or less free memory changes nothing."""
    unit = 1 << max(tokens.bit_length() - 3, 0)
    return tokens // unit * unit


class GenerationEngine:
    """Completes prompts with a Hugging Face causal LM.

    What is drawn for a prompt follows from the model, the prompt, the sampling and the prompt's own seed:
    not from the other prompts, their order or the budget, as far as rounding lets it. With beams,
    penalties or another `generation_config`, and for models that do not suit the engine's batches (it tries,
    and says so), transformers' `generate` draws, a whole batch from one seed.

    `tokens` is the most, prompts and new ones, that is generated for at once; `auto` takes as many as the device's free
    memory holds when it is first asked (on a CPU 32,768). Halved for good where the memory does not suffice, for
    growing and for measuring apart.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, tokens: GenerationTokens) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.tokens: GenerationTokens = tokens
        self.budgets: dict[_Work, Budget] = {}
        self._work: _Work = "growing"
        self._graphs = StepGraphs(model)

    def state(self) -> dict[str, Any]:
        """Give the budgets: in 16 bits other batches round differently, so a run that goes on makes them as it did."""
        budgets = {work: (budget.tokens, budget.row) for work, budget in self.budgets.items()}
        return {"budgets": budgets, "of": self._budgets_of()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over budgets, if they were found for this device and this wish."""
        if state.get("of") == self._budgets_of():
            self.budgets = {work: Budget(*numbers) for work, numbers in state["budgets"].items()}

    def _budgets_of(self) -> list[str]:
        device = self.model.device
        return [torch.cuda.get_device_name(device) if device.type == "cuda" else device.type, str(self.tokens)]

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Generate within the budget of measuring inside the block."""
        self._work = "measuring"
        try:
            yield
        finally:
            self._work = "growing"

    @property
    def budget(self) -> Budget:
        """What may be generated for at once now."""
        if self._work not in self.budgets:
            self.budgets[self._work] = budget_of(self.model, self.tokens)
        return self.budgets[self._work]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], top: TopLogprobs | None = None
    ) -> list[Completion]:
        """Complete each prompt.

        `top` is what to keep of the distributions that tokens are drawn from; where transformers' `generate` draws,
        nothing is kept. Raises InputError if a prompt and its new tokens do not fit into the model's window, or into
        memory.
        """
        encoded = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        self._check_window(encoded, sampling.max_new_tokens)
        stops = self.stop_ids(sampling)

        def complete(chosen: list[int]) -> list[Written]:
            ids, of_these = [encoded[place] for place in chosen], [seeds[place] for place in chosen]
            if sampling.is_plain and self._in_rows:
                return writing.complete(self.model, ids, sampling, of_these, stops, top, self._graphs)
            pad = int(self.tokenizer.pad_token_id)
            return [Written(new) for new in plain.complete(self.model, ids, sampling, of_these, stops, pad)]

        ends = set(stops)
        written = self._in_batches(encoded, sampling.num_beams, sampling.max_new_tokens, complete)
        return [self.completion(one, ends) for one in written]

    @torch.inference_mode()
    def distributions(
        self, prompts: Sequence[str], answers: Sequence[list[int]], sampling: Sampling, top: TopLogprobs
    ) -> list[TokenDistributions]:
        """Give the distributions of the next token all along given answers.

        `sampling.stop_at_newline` decides which tokens end an answer; none of them comes first. Gives for each prompt
        those at its answer's tokens, and behind the last one. Raises InputError if a prompt and its answer do not fit
        into the model's window, or into memory.
        """
        encoded = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        longest = max(map(len, answers), default=0)
        self._check_window([prompt + answer for prompt, answer in zip(encoded, answers, strict=True)], 0)
        stops = self.stop_ids(sampling)
        score = writing.score if self._in_rows else plain.score

        def scored(chosen: list[int]) -> list[TokenDistributions]:
            ids, given = [encoded[place] for place in chosen], [answers[place] for place in chosen]
            return score(self.model, ids, given, stops, top)

        return self._in_batches(encoded, 1, longest, scored)

    def _in_batches(
        self, encoded: list[list[int]], beams: int, new_tokens: int, compute: Callable[[list[int]], list[T]]
    ) -> list[T]:
        """Compute something for each prompt, in batches within the budget, in an order that shares much."""
        waiting = sharing_order(encoded)
        found: dict[int, T] = {}
        while waiting:
            chosen = self._first_batch(waiting, encoded, beams, new_tokens)
            try:
                with _without_cudnn_attention():
                    computed = compute(chosen)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                computed = None
            if computed is None:  # only here, since the error holds on to what was allocated
                self._halve([encoded[place] for place in chosen], beams, new_tokens)
                continue
            found.update(zip(chosen, computed, strict=True))
            waiting = waiting[len(chosen) :]
        return [found[place] for place in range(len(encoded))]

    def stop_ids(self, sampling: Sampling) -> list[int]:
        """Give the tokens that end a completion."""
        return sorted(self._end_ids | self._newline_ids) if sampling.stop_at_newline else sorted(self._end_ids)

    def _first_batch(self, waiting: list[int], encoded: list[list[int]], beams: int, new_tokens: int) -> list[int]:
        """Take as many prompts as the budget admits, and at least one."""
        longest = 0
        for count, place in enumerate(waiting):
            longest = max(longest, len(encoded[place]))
            if count and not self.budget.admits((count + 1) * beams, longest + new_tokens):
                return waiting[:count]
        return waiting

    @cached_property
    def _in_rows(self) -> bool:
        reason = why_not_in_rows(self.model)
        if reason is not None:
            rank_zero_warn(
                f"{type(self.model).__name__} does not suit the engine's own batches: {reason}. From now on "
                "transformers' generate takes their place, which is slower and draws a whole batch from one seed"
            )
        return reason is None

    def _halve(self, ids: list[list[int]], beams: int, new_tokens: int) -> None:
        """Halve the budget after a batch that did not fit into memory."""
        if len(ids) == 1:
            raise InputError(
                f"the device's memory does not suffice to generate for one prompt of {len(ids[0])} tokens and "
                f"{new_tokens} new ones. Lower max_new_tokens, demonstrations or num_beams"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        halved = self.budget.halved(len(ids) * beams, max(map(len, ids)) + new_tokens)
        self.budgets[self._work] = halved
        rank_zero_warn(
            f"out of memory while generating for {len(ids)} prompts at once: going on with model.generation_tokens "
            f"{halved.tokens}{' while measuring' if self._work == 'measuring' else ''}"
        )

    def _check_window(self, encoded: list[list[int]], new_tokens: int) -> None:
        if not all(encoded):
            raise InputError("a prompt without any token cannot be completed")
        window = context_window(self.model)
        longest = max(map(len, encoded), default=0)
        if window and longest + new_tokens > window:
            raise InputError(
                f"a prompt of {longest} tokens and {new_tokens} new ones do not fit into the model's "
                f"window of {window}. Lower max_new_tokens, shorten the text, or use a model with a longer window"
            )

    def completion(self, written: Written, stops: set[int]) -> Completion:
        """Give what was written as text, up to the token that ended it."""
        ids = written.ids
        for place, token in enumerate(ids):
            if token in stops:
                # a token that holds a newline may begin with text: "?\n" in some vocabularies
                end = [] if token in self._end_ids else [token]
                text = self._decode(ids[:place] + end).rstrip()
                return Completion(text, finished=True, ids=tuple(ids[:place]), distributions=written.distributions)
        return Completion(self._decode(ids), finished=False, ids=tuple(ids), distributions=written.distributions)

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @cached_property
    def _end_ids(self) -> set[int]:
        """The tokens that end a text: the tokenizer's EOS and end of turn, and the model's own."""
        own = getattr(self.model.generation_config, "eos_token_id", None)
        ends = own if isinstance(own, list) else [own]
        every = [self.tokenizer.eos_token_id, end_of_turn(self.tokenizer), *ends]
        return {token for token in every if token is not None}

    @cached_property
    def _newline_ids(self) -> set[int]:
        texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
        return {token for token, text in enumerate(texts) if "\n" in text}


@contextmanager
def _without_cudnn_attention() -> Iterator[None]:
    """Leave cuDNN's attention out inside the block.

    It makes a plan for every new shape, and here nearly every batch has a length of its own: others saw half a second
    for each, forwards and backwards (github.com/modelscope/FunASR/issues/3704).
    """
    was = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]  # torch gives it no types
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)
