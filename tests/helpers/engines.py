"""A tiny model that a vLLM server takes."""

from pathlib import Path

import torch
from conftest import make_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig


def make_served(folder: Path) -> str:
    """Make a tiny Llama with a head size that vLLM's attention on a CPU takes (32), which says words and ends."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=0, pad_token_id=1, bos_token_id=0,
        initializer_range=0.2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    texts = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    words = [token for token, text in enumerate(texts) if text[:1] == " " and text[1:].isalpha() and len(text) > 2]
    # a direction that all tokens share makes words, and the end, likely
    shared = torch.nn.functional.normalize(torch.randn(64), dim=0)
    with torch.no_grad():
        model.lm_head.weight *= 0.5
        model.model.embed_tokens.weight += shared
        model.lm_head.weight[words] += 0.5 * shared
        model.lm_head.weight[tokenizer.eos_token_id] += 0.55 * shared
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
