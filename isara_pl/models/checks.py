"""Whether a model that was loaded is what it seems, before anything is measured with it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from isara_pl.errors import InputError
from isara_pl.models.tokens import encode

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
