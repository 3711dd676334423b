"""Whether a model computes the same in the engine's batches as prompt by prompt, found by trying."""

from typing import Any

import torch

from isara_pl.generation.decoding import Batch
from isara_pl.generation.kv_cache import layers_of
from isara_pl.generation.shared_prefixes import Row
from isara_pl.memory import is_out_of_memory


def completes_in_rows(model: Any) -> bool:
    """Tell whether the engine's own batches suit a model; transformers' `generate` suits every one.

    Three short prompts that share tokens are computed, padded and one token appended, and compared with
    the same tokens one row at a time without any cache. That takes a fraction of a second.

    Args:
        model: A causal LM in eval mode.
    """
    if layers_of(model) is None:
        return False
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
        return False  # a model of its own kind
    alone = torch.stack(
        [
            torch.stack([_logits(model, prompts[place]) for place in batch.order]),
            torch.stack([_logits(model, [*prompts[place], first[1]]) for place in batch.order]),
        ]
    )
    if not alone.isfinite().all():
        return True  # nothing can be told apart; drawing says what is wrong
    computes_exactly = model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
    # in 16 bits rounding moves logits by hundredths of their spread; a wrong mask or position by much more
    allowed = (1e-3 if computes_exactly else 0.15) * alone.std()
    return bool(((in_rows - alone).abs().mean() < allowed).item())


def _logits(model: Any, tokens: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits
    return logits[0, -1].float()
