"""Whether a model computes the same in the engine's batches as prompt by prompt, found by trying."""

from typing import Any

import torch

from isara_pl.errors import first_line
from isara_pl.generation.decoding import Batch
from isara_pl.generation.kv_cache import layers_of
from isara_pl.generation.shared_prefixes import Row
from isara_pl.models.arithmetic import allowed_difference
from isara_pl.run.memory import is_out_of_memory


def why_not_in_rows(model: Any) -> str | None:
    """Tell why the engine's own batches do not suit a model; transformers' `generate` suits every one.

    Three short prompts that share tokens are computed, padded and one token appended, and compared with the same tokens
    one row at a time without any cache. That takes a fraction of a second. Gives the reason, with the differences that
    were found and allowed; None where they suit.
    """
    if layers_of(model) is None:
        return "it keeps a state other than the keys and values of each layer"
    first = [token % model.config.get_text_config().vocab_size for token in range(3, 15)]
    prompts = [first, first[:9], [*first[:6], first[0]]]
    plan = [[Row(0)], [Row(2, parent=0, shared=6, round=1), Row(1, parent=0, shared=8, round=1)]]
    try:
        batch = Batch(model, prompts, plan, new_tokens=1)
        appended = torch.full((3, 1), first[1], device=batch.device)
        in_rows = torch.stack([batch.prefill(), batch.step(appended, 0)])  # (2, rows, vocabulary)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return f"it fails in them: {type(error).__name__}: {first_line(error)}"  # a model of its own kind
    alone = torch.stack(
        [
            torch.stack([_logits(model, prompts[place]) for place in batch.order]),
            torch.stack([_logits(model, [*prompts[place], first[1]]) for place in batch.order]),
        ]
    )
    if not alone.isfinite().all():
        return None  # nothing can be told apart; drawing says what is wrong
    allowed = allowed_difference(model, alone)
    differences = (in_rows - alone).abs()
    mean, largest = differences.mean(dim=-1).max().item(), differences.max().item()
    if mean <= allowed:
        return None
    return (
        f"a prompt's logits in them differ from those of it alone by {mean:.2g} in the mean, {largest:.2g} at most; "
        f"allowed is a mean of {allowed:.2g}"
    )


def _logits(model: Any, tokens: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits
    return logits[0, -1].float()
