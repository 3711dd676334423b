"""Question-answer pairs, and reading them from the files that people have."""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

from isara_pl.errors import InputError
from isara_pl.growth.rows import FirstPair, first_pair, read_rows, short

_PAIR_FIELDS = "question/answer, question/best_answer, prompt/completion, instruction[/input]/output, or messages"
_FIELDS = (("question", "answer"), ("prompt", "completion"), ("instruction", "output"))  # the first that a row has
# where rows hold what an answer may rest on; it is said if it is in neither question nor answer
_BESIDE = ("system", "system_prompt", "context", "history", "instruction", "input", "question", "prompt")
_PREFERENCE_FIELDS = (("harmless", "harmful"), ("chosen", "rejected"))
# far above any model's window; a tokenizer would take minutes and gigabytes, only for the text to be cut or refused
LONGEST_TEXT = 1_000_000


@dataclass(frozen=True)
class Sample:
    """A question-answer pair of the pool, or a candidate for it, with its lineage.

    Attributes:
        id: Unique in a run: `seed-00012`, or `2-00034` for candidate 34 of outer epoch 2.
        question: What is asked.
        answer: The answer that is trained on, or the best answer of a held-out item.
        outer_epoch: 0 for a seed, else the outer epoch that wrote it.
        category: The domain or topic, where the file gives one.
        correct_answers: All correct answers of a held-out item.
        incorrect_answers: The incorrect answers of a held-out item.
        question_demonstrations: Ids of the samples that the question was written from, in order.
        answer_demonstrations: Ids of the samples that the answer was written from, in order.
        sampling_seed: Seed of the candidate, from which its question and answer were drawn.
        question_finished: Whether the model ended the question itself, rather than running out of tokens.
        answer_finished: Whether the model ended the answer itself, rather than running out of tokens.
        scores: Figure of every filter that an accepted sample passed, by the filter's class name.
    """

    id: str
    question: str
    answer: str
    outer_epoch: int = 0
    category: str | None = None
    correct_answers: tuple[str, ...] = ()
    incorrect_answers: tuple[str, ...] = ()
    question_demonstrations: tuple[str, ...] = ()
    answer_demonstrations: tuple[str, ...] = ()
    sampling_seed: int | None = None
    question_finished: bool = True
    answer_finished: bool = True
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Give the sample as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Sample":
        """Read a line that `to_json` wrote; it raises what `run.journal.entries` takes for a damage."""
        return cls.of(json.loads(line))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Sample":
        """Make a sample of a line's fields; each must be what it is in every file of ours."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        sample = cls(**fields)
        for number in (sample.outer_epoch, sample.sampling_seed or 0):
            if not isinstance(number, int) or not 0 <= number < 2**63:
                raise ValueError("`outer_epoch` and `sampling_seed` must be whole numbers below 2^63")
        for figure in sample.scores.values():
            if not isinstance(figure, int | float):
                raise ValueError("`scores` must be numbers")
        texts = [sample.id, sample.question, sample.answer, sample.category or "", *sample.scores]
        texts += [*sample.question_demonstrations, *sample.answer_demonstrations]
        try:
            "".join(texts).encode("utf-8")  # fails on half a character
        except TypeError:
            raise ValueError("id, question, answer, category and demonstrations must be text") from None
        return sample


def seeds_hash(seeds: Sequence[Sample]) -> str:
    """Give a short hash of seeds' questions and answers: which runs had the same ones."""
    text = json.dumps([(seed.question, seed.answer) for seed in seeds])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_samples(path: Path, kind: str = "seed") -> list[Sample]:
    """Read pairs from a .jsonl, .json (a list of objects) or .csv file.

    A row holds `question`/`answer`, `prompt`/`completion`, `instruction`[/`input`]/`output`, or `messages` (the first
    answer to a user, with the user's turns right before it); optional are `category`, `correct_answers` and
    `incorrect_answers` (a list; in CSV separated by `;`). TruthfulQA.csv can be read as it is, in its form of 2021 and
    in that of 2025 (with a column Best Incorrect Answer). A warning says what of the rows is in no pair: system texts,
    other turns, a field such as `context`. Ids start with `kind`. Raises InputError if a row cannot be used. The
    message begins with `FILE:LINE:`.
    """

    def sample(row: dict[str, Any], name: str) -> Sample:
        question, answer = _pair(row)
        return Sample(
            id=name,
            question=question,
            answer=answer,
            category=_optional_text(row, "category"),
            correct_answers=_answers(row, "correct_answers"),
            incorrect_answers=_incorrect_answers(row),
        )

    return _read(path, kind, sample, f"pairs in this file; expected one {_PAIR_FIELDS} a row")


def read_questions(path: Path, kind: str = "question") -> list[Sample]:
    """Read questions to answer: the files of `read_samples`, where the answer may be missing.

    Ids start with `kind`. Raises InputError if a row has no question. The message begins with `FILE:LINE:`.
    """

    def sample(row: dict[str, Any], name: str) -> Sample:
        return Sample(name, _question(row), "", category=_optional_text(row, "category"))

    return _read(path, kind, sample, "questions in this file")


def read_preferences(path: Path, kind: str) -> list[Sample]:
    """Read questions with a more harmless and a more harmful answer each.

    A row holds `question` (or `prompt`, or another form of `read_samples`), and `harmless` and `harmful`, or `chosen`
    and `rejected`; optional is `category`. Ids start with `kind`. `answer` is the harmless one, `incorrect_answers`
    holds the harmful one. Raises InputError if a row cannot be used. The message begins with `FILE:LINE:`.
    """

    def sample(row: dict[str, Any], name: str) -> Sample:
        better, worse = _preference_fields(row)
        question, harmless, harmful = _question(row), _text(row, better), _text(row, worse)
        if harmless == harmful:
            raise InputError(f"the fields `{better}` and `{worse}` hold the same text; remove the row")
        category = _optional_text(row, "category")
        return Sample(name, question, harmless, category=category, incorrect_answers=(harmful,))

    return _read(path, kind, sample, "pairs in this file; expected question, harmless and harmful in a row")


def _read(path: Path, kind: str, sample: Callable[[dict[str, Any], str], Sample], expected: str) -> list[Sample]:
    """Make a sample of every row, and say what is left out; an error begins with the row's file and line."""
    samples: list[Sample] = []
    left_out: Counter[str] = Counter()
    for line, row in read_rows(path):
        try:
            samples.append(sample(row, f"{kind}-{len(samples):05d}"))
            left_out.update(_left_out(row, samples[-1]))
        except InputError as error:
            raise InputError(f"{path}:{line}: {error}") from None
    if not samples:
        raise InputError(f"{path}: no {expected}")
    # no rank is set where nothing of Lightning was imported
    if left_out and getattr(rank_zero_only, "rank", 0) == 0:
        kinds = ", ".join(f"{what} in {count}" for what, count in left_out.most_common())
        warnings.warn(
            f"{path}: left out of questions and answers, of {len(samples)} rows: {kinds}. "
            "Where answers rest on it, write it into the questions",
            stacklevel=3,
        )
    return samples


def _left_out(row: dict[str, Any], sample: Sample) -> list[str]:
    """Give what of a row is neither in the question nor in the answer."""
    turns = first_pair(row["messages"]).left_out if "messages" in row else []
    texts = (sample.question, sample.answer)
    fields = [
        f"`{name}`"
        for name in _BESIDE
        if (value := row.get(name)) and not (isinstance(value, str) and any(value.strip() in text for text in texts))
    ]
    return [*turns, *fields]


def _preference_fields(row: dict[str, Any]) -> tuple[str, str]:
    for better, worse in _PREFERENCE_FIELDS:
        if better in row or worse in row:
            return better, worse
    raise InputError(
        f"no pair of answers among {short(sorted(row))}; expected harmless and harmful, or chosen and rejected"
    )


def _pair(row: dict[str, Any]) -> tuple[str, str]:
    if "messages" in row:
        pair = first_pair(row["messages"])
        if pair.answer is None:
            raise InputError("`messages` has no turn of role 'assistant' after the user's")
        return _asked(pair), _text(pair.answer, "content")
    fields = _fields(row)
    return _question(row), _text(row, "best_answer" if fields[0] == "question" and "best_answer" in row else fields[1])


def _question(row: dict[str, Any]) -> str:
    if "messages" in row:
        return _asked(first_pair(row["messages"]))
    name, _ = _fields(row)
    extra = _optional_text(row, "input") if name == "instruction" else None
    return _text(row, name) + (f"\n{extra}" if extra else "")


def _fields(row: dict[str, Any]) -> tuple[str, str]:
    """Give the fields of a row's question and of its answer: the question is never read beside another answer."""
    for fields in _FIELDS:
        if fields[0] in row:
            return fields
    raise InputError(f"no question field among {short(sorted(row))}; expected {_PAIR_FIELDS}")


def _asked(pair: FirstPair) -> str:
    return "\n".join(_text(message, "content") for message in pair.asked)


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise InputError(f"the field `{name}` is missing")
    value = row[name]
    if not isinstance(value, str):
        raise InputError(f"the field `{name}` must be text, found {type(value).__name__}")
    if not value.strip():
        raise InputError(f"the field `{name}` is empty")
    return _usable(value, name)


def _usable(value: str, name: str) -> str:
    """Give a text without the space around it, if a tokenizer and a file in UTF-8 can hold it."""
    if len(value) > LONGEST_TEXT:
        raise InputError(
            f"the field `{name}` has {len(value):,} characters; allowed: at most {LONGEST_TEXT:,}. "
            "Shorten it, or split it into several rows"
        )
    if "\0" in value:
        raise InputError(f"the field `{name}` holds the character NUL (U+0000); remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"the field `{name}` holds half a character (a lone surrogate); remove it") from None
    return value.strip()


def _optional_text(row: dict[str, Any], name: str) -> str | None:
    return _text(row, name) if row.get(name) else None


def _incorrect_answers(row: dict[str, Any]) -> tuple[str, ...]:
    best = _optional_text(row, "best_incorrect_answer")
    return tuple(dict.fromkeys([*([best] if best else []), *_answers(row, "incorrect_answers")]))


def _answers(row: dict[str, Any], name: str) -> tuple[str, ...]:
    values = row.get(name) or []
    if isinstance(values, str):
        values = [part for part in values.split(";") if part.strip()]
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise InputError(f"the field `{name}` must be a list of texts, none empty")
    return tuple(_usable(value, name) for value in values)
