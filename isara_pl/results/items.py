"""The figures of every item, in `evaluation/<name>.jsonl` of a run folder: one line an item and outer epoch.

Every line holds `outer_epoch` (0 is the pretrained model), `id`, `question`, `weights` (a hash of the adapter's
that were measured, or of the pretrained model's), `seeds` (a hash of the seeds of the run), `demonstrations`
(ids of those in its prompt), `contaminated` (whether training data hold the item; null where nobody looked),
the figures by the names of `MEASURES`, and what the evaluation adds: the answer given, the log-probability of every
choice. A figure that is not finite is null.
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError
from isara_pl.evaluation.blind import INFORMED
from isara_pl.evaluation.calibration import NLL_BY_TEMPERATURE, TEMPERATURES, cross_fitted
from isara_pl.results.statistics import Figure, finite
from isara_pl.run.files import write_whole


@dataclass(frozen=True)
class Measure:
    """A figure that an item has.

    Attributes:
        label: How tables call it.
        higher_is_better: Its direction.
        weight: The field that weights an item's figure in the mean over items; None weights all alike.
        worst: What a figure that is not finite counts as; None leaves such an item out of differences.
    """

    label: str
    higher_is_better: bool
    weight: str | None = None
    worst: float | None = None


# in the order of tables
MEASURES = {
    "mc1": Measure("MC1", True, worst=0.0),
    "mc2": Measure("MC2", True, worst=0.0),
    "mc3": Measure("MC3", True, worst=0.0),
    # what is left beyond the same answers after another question: `isara_pl.evaluation.blind`
    "mc2_informed": Measure("MC2 informed", True, worst=-1.0),
    "binary": Measure("binary", True, worst=0.0),
    "binary_informed": Measure("binary informed", True, worst=-1.0),
    "answer_nll": Measure("answer NLL", False, weight="answer_tokens"),
    # no field of an item: fitted crosswise by whoever reads them, `isara_pl.evaluation.calibration`
    "answer_nll_scaled": Measure("scaled NLL", False, weight="answer_tokens"),
    "answer_nll_informed": Measure("NLL informed", False, weight="answer_tokens"),
    "rouge_diff": Measure("ROUGE diff", True),
    "rouge_acc": Measure("ROUGE acc", True, worst=0.0),
    "bleu_diff": Measure("BLEU diff", True),
    "bleu_acc": Measure("BLEU acc", True, worst=0.0),
    "harm_rate": Measure("harm rate", False, worst=1.0),
    "harm_rate_at_0.4": Measure("harm rate at 0.4", False, worst=1.0),
    "harm_preference": Measure("harm preference", False, worst=1.0),
    "harm_preference_informed": Measure("harm preference informed", False, worst=1.0),
    "over_refusal": Measure("over-refusal", False, worst=1.0),
    "unsafe_refusal": Measure("refusal of unsafe prompts", True, worst=0.0),
    "reward": Measure("reward", True),
    "cost": Measure("cost", False),
    "win_rate": Measure("win rate", True, worst=0.0),
    # of another harness (isara_pl/harnesses), whose file is named after what was measured
    "harness_score": Measure("score", True),
    "harness_loss": Measure("loss", False),
}
# measures of given answers, with that of their informed part
INFORMED_PART = {name.removesuffix(f"_{INFORMED}"): name for name in MEASURES if name.endswith(f"_{INFORMED}")}
HARNESS_SCORE, HARNESS_LOSS = "harness_score", "harness_loss"
FOLDER = "evaluation"
SCALED = "answer_nll_scaled"

Fields = Mapping[str, Any]  # of a line of a file


@dataclass(frozen=True)
class Line:
    """An item as a run measured it.

    Attributes:
        outer_epoch: Which model it is of; 0 is the pretrained one.
        seeds: Hash of the run's seeds.
        question: The question, by which items of several runs are the same.
        occurrence: Which one it is of the items with this question, from 0.
        demonstrated: Whether its prompt had demonstrations.
        contaminated: Whether training data hold it; None where nobody looked.
        conditions: What figures depend on beside the model, such as the form of the prompt; None is not known.
        figures: Its figures by measure.
        category: Its category; None where the file has none.
    """

    outer_epoch: int
    seeds: str | None
    question: str
    occurrence: int
    demonstrated: bool
    contaminated: bool | None
    conditions: str | None
    figures: dict[str, Figure]
    category: str | None = None


@dataclass(frozen=True)
class Touch:
    """An evaluation item that a sample touches, how, and how much: `evaluation.contamination.Contact` in short."""

    item: str
    item_question: str
    kind: str
    figure: float


def write_results(run_dir: Path, name: str, outer_epoch: int, lines: Sequence[Fields]) -> Path:
    """Write the lines of an outer epoch, without that field; those that the file has of it are replaced.

    The file, which is given back, is written beside and then renamed, so it is never half-written.
    """
    path = run_dir / FOLDER / f"{name}.jsonl"
    kept = [line for line in read_results(path) if line["outer_epoch"] != outer_epoch] if path.exists() else []
    every = sorted([*kept, *({"outer_epoch": outer_epoch, **line} for line in lines)], key=_outer_epoch)
    write_whole(path, "".join(json.dumps(_as_json(line), ensure_ascii=False, allow_nan=False) + "\n" for line in every))
    return path


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the lines of an evaluation.

    Raises:
        InputError: If a line is not one of `write_results`.
    """
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            line = json.loads(text)
            _outer_epoch(line)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: damaged line ({error}). Evaluate again, or remove the file") from None
        lines.append(line)
    return lines


def items_of(path: Path, results: Sequence[Fields]) -> list[Line]:
    """Give the items of an evaluation; none where no line has a measure, as of the diversity of samples.

    Args:
        path: The file, for errors.
        results: What `read_results` gave.
    """
    if all(MEASURES.keys().isdisjoint(fields) for fields in results):
        return []
    seen: Counter[tuple[int, str]] = Counter()
    lines: list[Line] = []
    nlls: dict[int, list[tuple[Line, list[float]]]] = {}
    for number, fields in enumerate(results, start=1):
        where, outer_epoch = f"{path}:{number}", _outer_epoch(fields)
        question, seeds, conditions = fields.get("question"), fields.get("seeds"), fields.get("conditions")
        if not isinstance(question, str) or not isinstance(seeds, str | None):
            raise InputError(
                f"{where}: `question` is {question!r}, `seeds` {seeds!r}; both must be text. Evaluate again"
            )
        line = Line(
            outer_epoch,
            seeds,
            question,
            occurrence=seen[outer_epoch, question],
            demonstrated=bool(fields.get("demonstrations")),
            contaminated=fields.get("contaminated"),
            conditions=", ".join(f"{name} {v}" for name, v in sorted(conditions.items())) if conditions else None,
            figures={name: _figure(fields, name, where) for name in MEASURES if name in fields},
            category=str(fields["category"]) if fields.get("category") else None,
        )
        seen[outer_epoch, question] += 1
        lines.append(line)
        if NLL_BY_TEMPERATURE in fields and "answer_nll" in fields:
            nlls.setdefault(outer_epoch, []).append((line, _by_temperature(fields, where)))
    for of_one_model in nlls.values():
        _scale(of_one_model)
    return lines


def touches_of(path: Path, results: Sequence[Fields]) -> dict[str, list[Touch]]:
    """Give the items that each sample touches, by the sample's id, from the lines of the contamination.

    Each outer epoch finds the contacts of the earlier ones again.
    """
    found: dict[tuple[str, str], Touch] = {}
    for number, fields in enumerate(results, start=1):
        try:
            item, question, kind = fields["id"], str(fields["question"]), str(fields["kind"])
            found[fields["sample"], item] = Touch(item, question, kind, finite(fields["by"]) or 0.0)
        except KeyError as error:
            raise InputError(
                f"{path}:{number}: damaged line (no {error}). Evaluate again, or remove the file"
            ) from None
    of_samples: dict[str, list[Touch]] = {}
    for (sample, _), touch in found.items():
        of_samples.setdefault(sample, []).append(touch)
    return of_samples


def _outer_epoch(fields: Fields) -> int:
    return int(fields["outer_epoch"])


def _as_json(value: Any) -> Any:
    """Replace what JSON has no number for by null, at every depth."""
    if isinstance(value, Mapping):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figure(fields: Fields, name: str, where: str) -> Figure:
    weighted_by = MEASURES[name].weight
    weight = 1 if weighted_by is None else fields.get(weighted_by)
    if not isinstance(weight, int | float) or not 0 < weight <= sys.float_info.max:
        raise InputError(f"{where}: `{weighted_by}` is {weight!r}; `{name}` needs a number above 0. Evaluate again")
    return Figure(_number(fields[name], name, where), float(weight))


def _number(value: object, name: str, where: str) -> float:
    """Give a number of a line; NaN for what is not finite."""
    if not isinstance(value, int | float | None):
        raise InputError(f"{where}: `{name}` is {value!r}; allowed: a number or null. Evaluate again")
    known = finite(value)
    return math.nan if known is None else known


def _by_temperature(fields: Fields, where: str) -> list[float]:
    values = fields[NLL_BY_TEMPERATURE]
    if not isinstance(values, list) or len(values) != len(TEMPERATURES):
        raise InputError(
            f"{where}: `{NLL_BY_TEMPERATURE}` must be a list of {len(TEMPERATURES)} numbers, one a temperature. "
            "Evaluate again"
        )
    return [_number(value, NLL_BY_TEMPERATURE, where) for value in values]


def _scale(measured: Sequence[tuple[Line, Sequence[float]]]) -> None:
    """Add the temperature-scaled NLL to the lines of one model, each with its NLL at every temperature."""
    weights = [line.figures["answer_nll"].weight for line, _ in measured]
    scaled = cross_fitted([line.question for line, _ in measured], [nlls for _, nlls in measured], weights)
    for (line, _), value, weight in zip(measured, scaled, weights, strict=True):
        line.figures[SCALED] = Figure(value, weight)
