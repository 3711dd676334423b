"""Pairs of answers to prefer one of: that of the pool, and what the model answers without demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # ships no types
from tqdm import tqdm

from isara_pl.export.finished_run import FinishedRun
from isara_pl.export.merged_model import PlainModel, sampling_of
from isara_pl.export.pairs import METADATA, TURNS, Row, write_rows
from isara_pl.generation.engine import GenerationEngine
from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.samples import Sample
from isara_pl.run.randomness import derive_seed

AT_ONCE = 64  # questions between two steps of the progress bar

TEXT, MESSAGES = "preferences", "preference_messages"
_SHARED = {
    **{name: METADATA[name] for name in ("id", "outer_epoch", "category", "trained_on", "answer_demonstrations")},
    "rejected_finished": (pa.bool_(), "whether the model ended the rejected answer itself"),
}
# TRL's preference format with a prompt of its own, as texts and as turns
COLUMNS = {
    TEXT: {
        "prompt": (pa.string(), "the question, as the model was given it in training"),
        "chosen": (
            pa.string(),
            "the answer of the pool as it follows: a seed's own, or one written from demonstrations",
        ),
        "rejected": (pa.string(), "what the exported model answers to the prompt, which holds no demonstrations"),
        **_SHARED,
    },
    MESSAGES: {
        "prompt": (TURNS, "the question as a turn of the user"),
        "chosen": (TURNS, "the answer of the pool as a turn of the assistant"),
        "rejected": (TURNS, "what the exported model answers without demonstrations, as a turn of the assistant"),
        **_SHARED,
    },
}


@dataclass(frozen=True)
class Preferences:
    """How many pairs of answers there are.

    Attributes:
        seeds: Pairs whose chosen answer is a seed's.
        accepted: Pairs whose chosen answer the model wrote from demonstrations.
        same: Left out, since the model answers the same without demonstrations.
        no_text: Left out, since it answers nothing, or something holds the character NUL, which no reader takes.
    """

    seeds: int
    accepted: int
    same: int
    no_text: int


def write_preferences(run: FinishedRun, model: PlainModel, folder: Path) -> Preferences:
    """Let the model answer every question of the pool without demonstrations, and write the pairs into a folder.

    Answers are drawn as those of the candidates were (`data.answer_sampling`), each from the seed of the run and the
    id of its pair.

    Raises:
        InputError: If a question leaves no room for its answer in the model's window, or the memory does not suffice.
    """
    texts = model.prompt_format
    answered = _answers(run, model)
    kept: list[tuple[Sample, str, bool]] = []
    same = no_text = 0
    for sample, (answer, finished) in zip(run.samples, answered, strict=True):
        if not answer.strip() or "\0" in sample.question + sample.answer + answer:
            no_text += 1
        elif texts.answer_text(answer).strip() == texts.answer_text(sample.answer).strip():
            same += 1
        else:
            kept.append((sample, answer, finished))
    for name, of_pair in ((TEXT, _texts), (MESSAGES, _turns)):
        rows = [{**of_pair(s, answer, texts), **_shared(s, finished, run)} for s, answer, finished in kept]
        write_rows(folder, name, rows, COLUMNS[name])
    seeds = sum(sample.outer_epoch == 0 for sample, _, _ in kept)
    return Preferences(seeds, len(kept) - seeds, same, no_text)


def _answers(run: FinishedRun, model: PlainModel) -> list[tuple[str, bool]]:
    """Give the model's answer to each question of the pool, and whether it ended it."""
    texts, seed = model.prompt_format, int(run.options.shown("seed_everything"))
    sampling = replace(sampling_of(run.options, "data.answer_sampling"), stop_at_newline=texts.single_line)
    model.to_gpu()
    engine = GenerationEngine(model.model, model.tokenizer, "auto")
    answers: list[tuple[str, bool]] = []
    with tqdm(total=len(run.samples), desc="answers without demonstrations", unit="question") as bar:
        for start in range(0, len(run.samples), AT_ONCE):
            samples = run.samples[start : start + AT_ONCE]
            prompts = [texts.answer_prompt(sample.question) for sample in samples]
            seeds = [derive_seed(seed, "preference", sample.id) for sample in samples]
            written = engine.generate(prompts, sampling, seeds)
            answers += [(texts.parse_answer(completion.text), completion.finished) for completion in written]
            bar.update(len(samples))
    return answers


def _texts(sample: Sample, rejected: str, texts: PromptFormat) -> Row:
    return {
        "prompt": texts.answer_prompt(sample.question),
        "chosen": texts.answer_text(sample.answer),
        "rejected": texts.answer_text(rejected),
    }


def _turns(sample: Sample, rejected: str, texts: PromptFormat) -> Row:
    said = {"prompt": ("user", sample.question), "chosen": ("assistant", sample.answer)}
    said |= {"rejected": ("assistant", rejected)}
    return {name: [{"role": role, "content": content}] for name, (role, content) in said.items()}


def _shared(sample: Sample, finished: bool, run: FinishedRun) -> dict[str, Any]:
    demonstrations: Sequence[str] = sample.answer_demonstrations
    return {
        "id": sample.id,
        "outer_epoch": sample.outer_epoch,
        "category": sample.category,
        "trained_on": sample.id in run.trained_on,
        "answer_demonstrations": list(demonstrations),
        "rejected_finished": finished,
    }
