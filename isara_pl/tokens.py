"""Text to token ids, the same way for training, measuring and generating."""

from transformers import PreTrainedTokenizerBase


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Encode a text that a model is to continue: with the tokenizer's own BOS, without an EOS of its own.

    Args:
        tokenizer: Encodes.
        prompt: The text.
    """
    return _without_end(tokenizer, tokenizer(prompt).input_ids)


def encode_continuation(
    tokenizer: PreTrainedTokenizerBase, prompt: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Encode a prompt and what follows it so that no token straddles the boundary.

    Args:
        tokenizer: Encodes; its own BOS, if it adds one, comes first.
        prompt: The first text.
        continuation: The text after it, its leading space included.

    Returns:
        The ids of the prompt and the ids of the continuation.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    whole = encode_prompt(tokenizer, prompt + continuation)
    if whole[: len(prompt_ids)] == prompt_ids:
        return prompt_ids, whole[len(prompt_ids) :]
    # a merge across the boundary: encode the continuation by itself
    return prompt_ids, tokenizer(continuation, add_special_tokens=False).input_ids


def _without_end(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Drop the EOS that some tokenizers append; BOS may be the same token, so a lone one stays."""
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids
