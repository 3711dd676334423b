"""What tests of judges share with others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from conftest import make_tokenizer, tiny_config
from transformers import (  # type: ignore[attr-defined]  # BertTokenizerFast is made when it is asked for
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
)

QUESTIONS = ["Why is it so?", "Who are you and what do you want of me on a day like this?", "Hi", "Is {this} 100%?"]


ANSWERS = [
    "Air scatters blue light.",
    "No.",
    "They remember things for months, goldfish do, or so it seems.",
    "Ünlikely {0}",
]


KINDS = ("animal_abuse", "hate_speech,offensive_language", "violence")


TEMPLATE = "Q: {question} A: {answer}"


def save_classifier(
    folder: Path,
    architecture: str,
    labels: Sequence[str] = KINDS,
    problem_type: str | None = None,
    pad: int | None = None,
    nan: bool = False,
    window: int = 512,
) -> str:
    if architecture == "bert":
        letters = "abcdefghijklmnopqrstuvwxyzü0123456789?.,:{}%"
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_text("\n".join(vocabulary))
        tokenizer: PreTrainedTokenizerFast = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
        small: dict[str, Any] = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
        }
        config: Any = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=window, **small)
    else:
        tokenizer = make_tokenizer(pad=None)
        config = tiny_config(architecture, len(tokenizer), window)
        config.pad_token_id = pad
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: place for place, label in enumerate(labels)}
    config.problem_type = problem_type
    config.initializer_range = 0.3
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    if nan:
        (model.classifier if architecture == "bert" else model.score).weight.data.fill_(torch.nan)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
