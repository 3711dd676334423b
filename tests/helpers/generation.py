"""What tests of generation share with others."""

from isara_pl.generation.engine import GenerationEngine
from isara_pl.models.loading import load_causal_lm, load_tokenizer

# different lengths, long common beginnings, and the same prompt twice
CONTEXTS = [
    f"Question: Why {'so ' * i}?\nAnswer: The air scatters light {'and more ' * (40 + i)}.\n\n" for i in (2, 0, 9)
]


PROMPTS = [f"Question: Why is the sky {'very ' * i}blue?\nAnswer:" for i in (3, 0, 7, 1, 5)]


SHARING = [context + prompt for context in CONTEXTS for prompt in [*PROMPTS, PROMPTS[0]]] + PROMPTS


def engine(folder: str, tokens: int = 4096) -> GenerationEngine:
    return GenerationEngine(load_causal_lm(folder).eval(), load_tokenizer(folder), tokens)
