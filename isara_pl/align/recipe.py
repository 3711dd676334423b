"""The recipe of in-context learning: pairs, an index over them, and a prompt made of both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isara_pl.align.contestants import DEMONSTRATIONS, rows_of
from isara_pl.align.trials import write_rows
from isara_pl.growth.prompts import FormatName, prompt_format
from isara_pl.growth.retrieval import EMBEDDED_ENCODER, Demonstrations, SentenceEncoder, import_faiss
from isara_pl.growth.samples import Sample
from isara_pl.models.loading import load_tokenizer
from isara_pl.run.files import write_whole

PAIRS, INDEX, PROMPT = "demonstrations.jsonl", "questions.faiss", "prompt.txt"


def write_recipe(folder: Path, seeds: Sequence[Sample], config: dict[str, Any], seed: int) -> None:
    """Write what answering with demonstrations needs.

    Row i of `questions.faiss`, a flat index of inner products over normalised embeddings, is the question of line i of
    `demonstrations.jsonl`. `prompt.txt` is the prompt for the first question, as the model was measured with; it shows
    the form.

    Args:
        folder: Where to.
        seeds: The pairs.
        config: The configuration of a run with demonstrations.
        seed: Of the draws.
    """
    data = config["data"]
    encoder = SentenceEncoder(data.get("encoder", EMBEDDED_ENCODER))
    embeddings = encoder.encode([sample.question for sample in seeds])
    faiss = import_faiss()
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    write_rows(folder / PAIRS, rows_of(seeds, measure="answer_nll"))
    faiss.write_index(index, str(folder / INDEX))
    name: FormatName = data.get("prompt_format", "qa")
    tokenizer = load_tokenizer(config["model"]["name"]) if name == "chat" else None
    others = Demonstrations(seeds[1:], encoder, DEMONSTRATIONS, "knn", seed)
    prompt = prompt_format(name, tokenizer).answer_prompt(seeds[0].question, others.of(seeds[:1])[0])
    write_whole(folder / PROMPT, prompt)
