"""What a run's models answered to held-out questions, in `evaluation/held_out_answers.jsonl` of its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError
from isara_pl.results.items import FOLDER, read_results
from isara_pl.results.statistics import finite

NAME = "held_out_answers"


@dataclass(frozen=True)
class Answered:
    """A held-out question, what was given, and what the models answered.

    Attributes:
        question: The question.
        given: The answer that a person gave.
        pretrained: The pretrained model's, with dots where it was cut off; None where it was not asked.
        trained: That of the last outer epoch that was asked; None where there is none.
        outer_epoch: Which one that is; 0 where there is none.
        nll_change: How much the given answer's NLL rose by training; None is not known.
    """

    question: str
    given: str
    pretrained: str | None
    trained: str | None
    outer_epoch: int
    nll_change: float | None


def read_answers(run_dir: Path, outer_epoch: int | None = None) -> list[Answered]:
    """Read what was answered by an outer epoch, as `answers_of` gives it."""
    path = run_dir / FOLDER / f"{NAME}.jsonl"
    return answers_of(path, read_results(path) if path.exists() else [], outer_epoch)


def answers_of(path: Path, lines: Sequence[Mapping[str, Any]], outer_epoch: int | None = None) -> list[Answered]:
    """Give what was answered by an outer epoch, the last one without a number; the worst by NLL change come first.

    Args:
        path: The file, for errors.
        lines: What `read_results` gave.
        outer_epoch: Which one.

    Raises:
        InputError: If a line is damaged.
    """
    last = max((line["outer_epoch"] for line in lines), default=0) if outer_epoch is None else outer_epoch
    try:
        before = {line["id"]: _answer(line) for line in lines if line["outer_epoch"] == 0}
        found = [
            Answered(
                _text(line["question"]),
                _text(line["given"]),
                before.get(line["id"]),
                _answer(line) if last else None,
                last,
                finite(line.get("nll_change")),
            )
            for line in lines
            if line["outer_epoch"] == last
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged line ({error!r}). Evaluate again, or remove the file") from None
    return sorted(found, key=lambda one: -one.nll_change if one.nll_change is not None else 0.0)


def nll_changes(run_dir: Path, outer_epoch: int) -> Mapping[str, float]:
    """Give how much the NLL of each question's given answer rose from the pretrained model to an outer epoch.

    It is that of the first evaluation which measured both.
    """
    for path in sorted((run_dir / FOLDER).glob("*.jsonl")):
        lines = read_results(path)
        before, after = (
            {
                line["question"]: nll
                for line in lines
                if line["outer_epoch"] == number and (nll := finite(line.get("answer_nll"))) is not None
            }
            for number in (0, outer_epoch)
        )
        if before and after:
            return {question: nll - before[question] for question, nll in after.items() if question in before}
    return {}


def _answer(line: Mapping[str, Any]) -> str:
    """Give an answer, with dots where it was cut off."""
    return _text(line["answer"]) + ("" if line.get("finished", True) else " …")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
