"""Question-answer pairs, and reading them from the files that people have."""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

from isara_pl.errors import InputError, Notice
from isara_pl.growth.conversations import NoPairError
from isara_pl.growth.hub_data import HubData, Source
from isara_pl.growth.rows import read_rows
from isara_pl.growth.safety import is_safe_of, safe_prompt_of
from isara_pl.growth.shapes import (
    PAIR_FIELDS,
    Columns,
    Shapes,
    best_incorrect_answer_of,
    category_of,
    correct_answers_of,
    incorrect_answers_of,
    is_preference,
    left_out_of,
    pair_of,
    preference_of,
    question_of,
)
from isara_pl.growth.tables import Row

_RARE = ("best_incorrect_answer",)


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
        best_incorrect_answer: The best of the incorrect answers, where the file has a field of its own for it.
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
    best_incorrect_answer: str | None = None

    def to_json(self) -> str:
        """Give the sample as one line of JSON; what hardly any sample has is left out where there is none."""
        fields = {name: value for name, value in asdict(self).items() if value is not None or name not in _RARE}
        return json.dumps(fields, ensure_ascii=False)

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
        texts.append(sample.best_incorrect_answer or "")
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


def pair_row(sample: Sample) -> dict[str, Any]:
    """Give a sample as a row that `read_samples` reads as one with the same texts; what it has none of is left out."""
    texts = ("question", "answer", "category", "correct_answers", "incorrect_answers", "best_incorrect_answer")
    return {name: value for name in texts if (value := getattr(sample, name))}


def preference_row(sample: Sample) -> dict[str, Any]:
    """Give a sample of `read_preferences` as a row that it reads."""
    return {"question": sample.question, "harmless": sample.answer, "harmful": sample.incorrect_answers[0]}


def read_samples(source: Source, kind: str = "seed", columns: Columns = None) -> list[Sample]:
    """Read pairs from a file of JSON lines, a JSON list of objects, CSV, Parquet or Excel, or from the hub.

    A row holds `question`/`answer`, `prompt`/`completion`, `instruction`[/`input`]/`output`, or `messages` (the first
    answer to a user, with the user's turns right before it), or another form of docs/DATA.md; optional are `category`,
    `correct_answers` and `incorrect_answers` (a list; in CSV separated by `;`). TruthfulQA.csv can be read as it is, in
    its form of 2021 and in that of 2025 (with a column Best Incorrect Answer). Of BeaverTails the safe answers are
    read, of HH-RLHF the chosen ones of dialogues with one question; a warning counts the others. `columns` are the
    names that fields have in the file. A warning says what of the rows is in no pair: system texts, other turns, a
    field such as `context`, blank rows. Ids start with `kind`. Raises InputError if a row cannot be used. The message
    begins with `FILE:LINE:`, or `FILE: row N:` for Parquet and the hub.
    """

    def sample(row: Row, name: str) -> Sample:
        question, answer = pair_of(row)
        return Sample(
            id=name,
            question=question,
            answer=answer,
            category=category_of(row),
            correct_answers=correct_answers_of(row),
            incorrect_answers=incorrect_answers_of(row),
            best_incorrect_answer=best_incorrect_answer_of(row),
        )

    return _read(source, kind, columns, sample, f"pairs in this file; expected one {PAIR_FIELDS} a row")


def read_questions(source: Source, kind: str = "question", columns: Columns = None) -> list[Sample]:
    """Read questions to answer: the files of `read_samples`, where the answer may be missing.

    Ids start with `kind`. Raises InputError if a row has no question. The message begins as of `read_samples`.
    """

    def sample(row: Row, name: str) -> Sample:
        return Sample(name, question_of(row), "", category=category_of(row))

    return _read(source, kind, columns, sample, "questions in this file")


def read_prompts(
    source: Source, kind: str, columns: Columns = None, otherwise: bool | None = None
) -> tuple[list[Sample], dict[str, bool]]:
    """Read questions to answer, and by their ids whether each is safe to answer.

    XSTest's file says so by `label`, or else by `type`, which is then the category; StrongREJECT's are all unsafe.
    `otherwise` is what a prompt is of which the file does not say it; None refuses such a file. Raises InputError as
    `read_questions` does.
    """
    safe: dict[str, bool] = {}

    def sample(row: Row, name: str) -> Sample:
        safe[name] = safe_prompt_of(row, otherwise)
        named = row if "category" in row else {**row, "category": row.get("type")}
        return Sample(name, question_of(row), "", category=category_of(named))

    return _read(source, kind, columns, sample, "questions in this file"), safe


def read_preferences(source: Source, kind: str, columns: Columns = None) -> list[Sample]:
    """Read questions with a more harmless and a more harmful answer each.

    A row holds `question` (or `prompt`, or another form of `read_samples`), and `harmless` and `harmful`, or `chosen`
    and `rejected`; optional is `category`. Of BeaverTails the first safe and the first unsafe answer to a prompt make a
    pair; of HH-RLHF, dialogues with one question are read. Ids start with `kind`. `answer` is the harmless one,
    `incorrect_answers` holds the harmful one. Raises InputError if a row cannot be used. The message begins as of
    `read_samples`.
    """

    def sample(row: Row, name: str) -> Sample:
        question, harmless, harmful = preference_of(row)
        return Sample(name, question, harmless, category=category_of(row), incorrect_answers=(harmful,))

    expected = "pairs in this file; expected question, harmless and harmful in a row"
    return _read(source, kind, columns, sample, expected, _pairs_of_judged)


def _as_they_are(rows: Iterable[tuple[str, Row]], unused: Counter[str]) -> Iterable[tuple[str, Row]]:
    return rows


def _pairs_of_judged(rows: Iterable[tuple[str, Row]], unused: Counter[str]) -> Iterator[tuple[str, Row]]:
    """Make one row of the first safe and the first unsafe answer to a prompt; give rows of other shapes as they are."""
    first: dict[str, Row] = {}
    paired: set[str] = set()
    judged = 0
    for place, row in rows:
        try:
            is_safe = None if is_preference(row) else is_safe_of(row)
            if is_safe is None:
                yield place, row
                continue
            question, answer = pair_of({**row, "is_safe": True})
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        judged += 1
        own = {"harmless" if is_safe else "harmful": answer, "category": None if is_safe else row.get("category")}
        both = {"question": question, **first.setdefault(question, own), **own}
        if question not in paired and "harmless" in both and "harmful" in both:
            paired.add(question)
            yield place, {**both, "category": own["category"] or first[question]["category"]}
    unused["no pair of a safe and an unsafe answer to one prompt, or one more of it"] += judged - 2 * len(paired)


def _read(
    source: Source,
    kind: str,
    columns: Columns,
    sample: Callable[[Row, str], Sample],
    expected: str,
    joined: Callable[[Iterable[tuple[str, Row]], Counter[str]], Iterable[tuple[str, Row]]] = _as_they_are,
) -> list[Sample]:
    """Make a sample of every row, and say what is left out; an error begins with the row's file and place."""
    shapes = Shapes(source.columns or columns if isinstance(source, HubData) else columns)
    samples: list[Sample] = []
    blank: list[str] = []
    left_out: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    known = ((place, shapes.known(given)) for place, given in read_rows(source, shapes.names))
    for place, row in joined(known, unused):
        if not row:
            blank.append(place)
            continue
        try:
            samples.append(one := sample(row, f"{kind}-{len(samples):05d}"))
            left_out.update(left_out_of(row, (one.question, one.answer)))
        except NoPairError as reason:
            unused[str(reason)] += 1
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    not_used = ", ".join(f"{count} ({reason})" for reason, count in unused.most_common() if count)
    if not samples:
        raise InputError(f"{source}: no {expected}" + (f". Rows that are none: {not_used}" if not_used else ""))
    if blank:
        _warn(f"{source}: blank rows were left out, {len(blank)} in all, the first at {blank[0]}")
    if not_used:
        _warn(f"{source}: {len(samples)} rows were read; left out: {not_used}")
    if left_out:
        kinds = ", ".join(f"{what} in {count}" for what, count in left_out.most_common())
        _warn(
            f"{source}: left out of questions and answers, of {len(samples)} rows: {kinds}. "
            "Where answers rest on it, write it into the questions"
        )
    return samples


def _warn(text: str) -> None:
    if getattr(rank_zero_only, "rank", 0) == 0:  # no rank is set where nothing of Lightning was imported
        warnings.warn(text, Notice, stacklevel=4)
