"""`isara-pl compare`: methods against each other, from the figures of every item in their run folders."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

from isara_pl.cli.usage import PlainErrors
from isara_pl.errors import InputError, did_you_mean
from isara_pl.results import alpha
from isara_pl.results.comparison import BASELINES, FEW_ITEMS, Evaluated, evaluate
from isara_pl.results.comparison_table import Section, as_markdown, as_text, csv_text, section
from isara_pl.results.measures import MEASURES
from isara_pl.results.methods import Entry, pool_runs
from isara_pl.results.named_runs import named_run
from isara_pl.results.run import CLAIMED, CONTROL, DISTILLATION, OF_SEEDS, PRETRAINED, Run, measured_run
from isara_pl.results.statistics import CONFIDENCE
from isara_pl.run.files import write_whole
from isara_pl.run.paths import all_expanded

CONTROL_MISSING = (
    f"No run of {CONTROL} is among these, so nothing here says what the demonstrations add to distillation: the same "
    "run with data.teacher_demonstrations off does."
)
LEGEND = (
    "it covers the choice of questions, not that of seeds or of training runs, and is not corrected for the number "
    "of comparisons. Detectable from: the smallest true difference that such data would show with 80 % power."
)


def main(args: Sequence[str]) -> None:
    """Run `isara-pl compare`.

    Args:
        args: The arguments after `compare`.

    Raises:
        InputError: If the runs cannot be compared.
        ArgumentError: If the arguments cannot be used.
    """
    options = all_expanded(_parser().parse_args(list(args)))
    runs = [named_run(text, "compare") for text in options.runs]
    if options.alpha:
        if len(runs) != 1 or options.reference or options.clean or options.outer_epochs != "last":
            raise InputError("--alpha takes one run, and beside it --json, --csv and --markdown only")
        sections, found, table = alpha.report(Run(runs[0][1]))
    else:
        sections, found, table = _compare(runs, options)
    print(as_text(sections))
    found = {"command": {"name": "compare", **options.as_dict()}, **found}
    for path, text in (
        (options.json, json.dumps(found, allow_nan=False, indent=2) + "\n"),
        (options.csv, table),
        (options.markdown, as_markdown(sections)),
    ):
        if path is not None:
            write_whole(Path(path), text)
            print(f"written: {path}")


def _parser() -> PlainErrors:
    parser = PlainErrors(
        prog="isara-pl compare",
        allow_abbrev=False,
        description="Compare methods on the same items, from the evaluation/ of their run folders. Fitted runs are "
        "taken to start from one pretrained model.",
    )
    parser.add_argument(
        "runs",
        type=str,
        nargs="+",
        metavar="[NAME=]RUN",
        help="Run folders. Without NAME the method is called like the folder, without a seed at the end (-seed3). "
        "Runs of one name are pooled.",
    )
    parser.add_argument(
        "--reference",
        type=str | None,
        default=None,
        metavar="NAME",
        help="The method that the others are compared to. Without it: SFT on the seeds, else the pretrained model.",
    )
    parser.add_argument(
        "--outer_epochs",
        type=Literal["last", "all"],
        default="last",
        help="Of a fitted run, the last outer epoch measured, or every one as a row.",
    )
    parser.add_argument("--clean", action="store_true", help="Leave out the items that some run was trained on.")
    parser.add_argument(
        "--alpha",
        action="store_true",
        help="From one run with alpha_stopping.alpha 0: where every α would have stopped it, and the figures there.",
    )
    parser.add_argument("--resamples", type=int, default=10_000, metavar="N", help="Resamples of the bootstrap.")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, metavar="N", help="Seed of the resamples.")
    for name in ("json", "csv", "markdown"):
        parser.add_argument(f"--{name}", type=str | None, default=None, metavar="FILE", help=f"Write {name} here too.")
    return parser


def _compare(given: Sequence[tuple[str, Path]], options: Namespace) -> tuple[list[Section], dict[str, Any], str]:
    """Give the comparison as sections, as what JSON holds and as CSV."""
    if options.resamples < 100:
        raise InputError(f"--resamples is {options.resamples}; allowed: at least 100")
    for (name, path), count in Counter((name, path.resolve()) for name, path in given).items():
        if count > 1:
            raise InputError(f"compare: {path} is given {count} times for {name!r}; give each run once")
    entries = pool_runs([(name, measured_run(path)) for name, path in given], options.outer_epochs == "all")
    reference = _reference(entries, options.reference)
    names = sorted({name for entry in entries for _, lines in entry.runs for name in lines if lines[name]})
    evaluations = [evaluate(name, entries, reference, options.clean, options.resamples, options.seed) for name in names]
    about = f"paired bootstrap over the questions ({options.resamples} resamples, seed {options.seed})"
    notes = [*_notes(entries, evaluations, reference), f"Every interval is a {about}: {LEGEND}"]
    found = {
        "reference": reference.name,
        "confidence": CONFIDENCE,
        "measures": {name: asdict(measure) for name, measure in MEASURES.items()},
        "evaluations": [asdict(evaluated) for evaluated in evaluations],
        "notes": notes,
    }
    sections = [*(section(evaluated, reference.name) for evaluated in evaluations), Section("Notes", [], notes)]
    return sections, found, csv_text(evaluations, reference.name)


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
