"""The pool as a data set: as prompt/completion and as messages; files of rows, each as JSONL and Parquet."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from isara_pl.export.finished_run import FinishedRun
from isara_pl.growth.prompts import PromptFormat
from isara_pl.growth.samples import Sample
from isara_pl.models.tokens import MARK
from isara_pl.run.files import save_whole, write_whole

PROMPT_COMPLETION, MESSAGES = "prompt_completion", "messages"

Row = dict[str, Any]
Columns = Mapping[str, tuple[Any, str]]  # column -> its type, and what it holds

TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

METADATA = {
    "id": (pa.string(), "unique in the run: `seed-00012`, or `2-00034` for candidate 34 of outer epoch 2"),
    "outer_epoch": (pa.int64(), "0 for a seed, else the outer epoch that wrote the pair"),
    "category": (pa.string(), "the seed's category, where its file gives one"),
    "trained_on": (pa.bool_(), "whether the adapter was trained on the pair"),
    "question_demonstrations": (pa.list_(pa.string()), "ids of the pairs that the question was written from"),
    "answer_demonstrations": (pa.list_(pa.string()), "ids of the pairs that the answer was written from"),
    "question_finished": (pa.bool_(), "whether the model ended the question itself"),
    "answer_finished": (pa.bool_(), "whether the model ended the answer itself"),
    "sampling_seed": (pa.int64(), "seed that question and answer were drawn with"),
    "scores": (
        pa.list_(pa.struct([("filter", pa.string()), ("figure", pa.float64())])),
        "figure of each filter that the pair passed",
    ),
}
TEXTS = {
    PROMPT_COMPLETION: {
        "prompt": (pa.string(), "the question, as the model was given it in training"),
        "completion": (pa.string(), "the answer as it follows, without the token that ends it"),
    },
    MESSAGES: {
        "messages": (TURNS, "the question as a turn of the user, the answer as one of the assistant"),
    },
}


def write_pairs(run: FinishedRun, prompt_format: PromptFormat, folder: Path) -> None:
    """Write the files of the data set into a folder."""
    for name, rows in (
        (PROMPT_COMPLETION, [_prompt_completion(sample, run, prompt_format) for sample in run.samples]),
        (MESSAGES, [_messages(sample, run) for sample in run.samples]),
    ):
        write_rows(folder, name, rows, {**TEXTS[name], **METADATA})


def write_rows(folder: Path, name: str, rows: Sequence[Row], columns: Columns) -> None:
    """Write rows as JSONL and as Parquet."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    write_whole(folder / f"{name}.jsonl", "".join(line + "\n" for line in lines))
    schema = pa.schema([(column, kind) for column, (kind, _) in columns.items()])
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)
    save_whole(folder / f"{name}.parquet", file.getbuffer())


def with_marks(samples: Sequence[Sample], prompt_format: PromptFormat) -> int:
    """Count the pairs whose prompt or completion holds a mark, since they spell a control token."""
    return sum(
        MARK in prompt_format.answer_prompt(s.question) + prompt_format.answer_text(s.answer)
        and MARK not in s.question + s.answer
        for s in samples
    )


def _prompt_completion(sample: Sample, run: FinishedRun, prompt_format: PromptFormat) -> Row:
    prompt, completion = prompt_format.answer_prompt(sample.question), prompt_format.answer_text(sample.answer)
    return {"prompt": prompt, "completion": completion, **_metadata(sample, run)}


def _messages(sample: Sample, run: FinishedRun) -> Row:
    turns = [{"role": "user", "content": sample.question}, {"role": "assistant", "content": sample.answer}]
    return {"messages": turns, **_metadata(sample, run)}


def _metadata(sample: Sample, run: FinishedRun) -> Row:
    return {
        "id": sample.id,
        "outer_epoch": sample.outer_epoch,
        "category": sample.category,
        "trained_on": sample.id in run.trained_on,
        "question_demonstrations": list(sample.question_demonstrations),
        "answer_demonstrations": list(sample.answer_demonstrations),
        "question_finished": bool(sample.question_finished),
        "answer_finished": bool(sample.answer_finished),
        "sampling_seed": sample.sampling_seed,
        "scores": [
            {"filter": name, "figure": float(figure) if math.isfinite(figure) else None}
            for name, figure in sample.scores.items()
        ],
    }
