"""How much is generated for at once: as much as the memory holds, halved where it does not."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from isara_pl.generation.decoding import PREFILL_TOKENS

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
    states = model(input_ids=ids, use_cache=True).get("past_key_values")
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
