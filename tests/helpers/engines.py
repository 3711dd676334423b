"""A tiny model that a vLLM server takes."""

from pathlib import Path

import torch
from conftest import TEXTS, make_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig


def make_served(folder: Path, seed: int = 0) -> str:
    """Make a tiny Llama with a head size that vLLM's attention on a CPU takes (32), which says words and ends."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=0, pad_token_id=1, bos_token_id=0,
        initializer_range=0.2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    texts = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    words = [token for token, text in enumerate(texts) if text[:1] == " " and text[1:].isalpha() and len(text) > 2]
    # a direction that all hidden states share makes words, and the end, likely
    shared = torch.nn.functional.normalize(torch.randn(64), dim=0)
    with torch.no_grad():
        model.model.embed_tokens.weight += 3 * shared
        states = model.model(tokenizer(TEXTS[0], return_tensors="pt").input_ids).last_hidden_state[0].mean(dim=0)
        model.lm_head.weight[words] += 3.0 * states / states.norm() ** 2
        model.lm_head.weight[tokenizer.eos_token_id] += 5.0 * states / states.norm() ** 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
