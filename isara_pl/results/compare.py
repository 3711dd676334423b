"""Methods against each other, from the figures of every item in their run folders: in numbers, tables and sentences."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError, did_you_mean
from isara_pl.results.comparison import BASELINES, FEW_ITEMS, Evaluated, evaluate
from isara_pl.results.comparison_table import Section, csv_text, section
from isara_pl.results.measures import MEASURES
from isara_pl.results.methods import Entry, pool_runs
from isara_pl.results.run import CLAIMED, CONTROL, DISTILLATION, OF_SEEDS, PRETRAINED, measured_run
from isara_pl.results.statistics import CONFIDENCE

CONTROL_MISSING = (
    f"No run of {CONTROL} is among these, so nothing here says what the demonstrations add to distillation: the same "
    "run with data.teacher_demonstrations off does."
)
LEGEND = (
    "it covers the choice of questions, not that of seeds or of training runs, and is not corrected for the number "
    "of comparisons. Detectable from: the smallest true difference that such data would show with 80 % power."
)


def compare(
    given: Sequence[tuple[str, Path]],
    reference: str | None,
    every_outer_epoch: bool,
    clean: bool,
    resamples: int,
    seed: int,
) -> tuple[list[Section], dict[str, Any], str]:
    """Compare runs, each with the name of its method: as sections, as what JSON holds, and as CSV."""
    if resamples < 100:
        raise InputError(f"--resamples is {resamples}; allowed: at least 100")
    for (name, path), count in Counter((name, path.resolve()) for name, path in given).items():
        if count > 1:
            raise InputError(f"compare: {path} is given {count} times for {name!r}; give each run once")
    entries = pool_runs([(name, measured_run(path)) for name, path in given], every_outer_epoch)
    other = _reference(entries, reference)
    names = sorted({name for entry in entries for _, lines in entry.runs for name in lines if lines[name]})
    evaluations = [evaluate(name, entries, other, clean, resamples, seed) for name in names]
    about = f"paired bootstrap over the questions ({resamples} resamples, seed {seed})"
    notes = [*_notes(entries, evaluations, other), f"Every interval is a {about}: {LEGEND}"]
    found = {
        "reference": other.name,
        "confidence": CONFIDENCE,
        "measures": {name: asdict(measure) for name, measure in MEASURES.items()},
        "evaluations": [asdict(evaluated) for evaluated in evaluations],
        "notes": notes,
    }
    sections = [*(section(evaluated, other.name) for evaluated in evaluations), Section("Notes", [], notes)]
    return sections, found, csv_text(evaluations, other.name)


def _reference(entries: Sequence[Entry], name: str | None) -> Entry:
    """Find the reference; of a method whose outer epochs are entries, the last one."""
    if name is None:
        for kind in (*OF_SEEDS, PRETRAINED):
            of_kind = [entry for entry in entries if entry.kind == kind]
            if of_kind:
                return [entry for entry in of_kind if entry.method == of_kind[0].method][-1]
        return entries[0]
    found = [entry for entry in entries if name in (entry.name, entry.method)]
    if not found:
        names = list(dict.fromkeys(known for entry in entries for known in (entry.name, entry.method)))
        raise InputError(
            f"--reference: no method is named {name!r}.{did_you_mean(repr(name), map(repr, names))} "
            f"Allowed: {', '.join(map(repr, names))}"
        )
    return found[-1]


def _notes(entries: Sequence[Entry], evaluations: Sequence[Evaluated], reference: Entry) -> list[str]:
    """Say what is missing, and what must be known to read the tables."""
    notes, kinds = [], {entry.kind for entry in entries}
    claimed = " or ".join(kind for kind in CLAIMED if kind in kinds)
    if not claimed:
        notes.append(f"No run of {' or '.join(CLAIMED)} is among these, so nothing here says whether it helps.")
    else:
        notes += [
            f"No run of {kind} is among these, so nothing here says whether {claimed} beats it: "
            f"python -m isara_pl {command}"
            for kind, command in BASELINES.items()
            if kind not in kinds
        ]
    if DISTILLATION in kinds and CONTROL not in kinds:
        notes.append(CONTROL_MISSING)
    notes += [
        f"{entry.name}: {path} was not measured after training (α ended it in outer epoch 1, or it did not finish); "
        "it counts with its pretrained model."
        for entry in entries
        if entry.kind in (*CLAIMED, CONTROL)
        for path, lines in entry.runs
        if all(line.outer_epoch == 0 for of_evaluation in lines.values() for line in of_evaluation)
    ]
    for evaluated in evaluations:
        if reference.name not in {row.method for row in evaluated.rows}:
            notes.append(f"{evaluated.name}: {reference.name} was not measured, so there are no differences to it.")
        if max(row.items for row in evaluated.rows) < FEW_ITEMS:
            notes.append(f"{evaluated.name}: intervals from fewer than {FEW_ITEMS} items are too narrow to be trusted.")
    return notes
