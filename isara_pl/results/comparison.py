"""What the figures of several methods say against each other, in numbers and in plain sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isara_pl.errors import InputError
from isara_pl.results.items import INFORMED_PART, MEASURES, Line
from isara_pl.results.methods import Entry, equal_budgets
from isara_pl.results.run import CLAIMED, CONTROL, ICL, OF_SEEDS, PRETRAINED, SFT
from isara_pl.results.statistics import Difference, Figure, Unit, average_units, pair_units, weighted_mean

FEW_CLAIMS = 4  # with more of them only summaries are said: the figures stand in the table

BASELINES = {
    SFT: "fit --config configs/baselines/sft_seeds.yaml",
    ICL: "validate --config configs/baselines/icl_knn.yaml",
}
FEW_ITEMS = 30


@dataclass(frozen=True)
class Row:
    """The figures of a method in an evaluation.

    Attributes:
        method: Its name.
        kind: What it is, e.g. SFT on the seeds.
        runs: Run folders that were pooled.
        outer_epochs: Outer epochs that the figures are of; several where pooled runs ended at different ones.
        items: Items measured.
        values: Means by measure; None where no item has a finite figure.
        not_finite: Lines whose figure is not finite, by measure.
    """

    method: str
    kind: str
    runs: list[str]
    outer_epochs: list[int]
    items: int
    values: dict[str, float | None]
    not_finite: dict[str, int]


@dataclass(frozen=True)
class Contrast:
    """A method's difference to another one in a measure.

    Attributes:
        measure: The measure.
        method: The method.
        reference: What it is compared to.
        conclusion: `better`, `worse`, `cannot tell`, or `no data`: whether the interval excludes 0, and where it is.
        difference: The method's mean minus the reference's; None from fewer than two common questions.
        not_finite: Common items left out, since a figure is not finite.
        by_seed_set: The difference for every seed set that both had, by the hash of the seeds.
        unpaired: Hashes of the seed sets that only one of them had. They are left out, unless no seed set is common.
    """

    measure: str
    method: str
    reference: str
    conclusion: str
    difference: Difference | None
    not_finite: int
    by_seed_set: dict[str, float]
    unpaired: list[str | None]


@dataclass(frozen=True)
class Evaluated:
    """All methods in an evaluation.

    Attributes:
        name: The evaluation.
        items: Items measured in any run.
        contaminated: How many of them some run's training data hold.
        unchecked: How many nobody looked for in the training data.
        left_out: Whether the contaminated ones were left out.
        measures: Measures present, in the order of tables.
        rows: One for each method.
        contrasts: Every difference asked for.
        sentences: What it says about self-generation and distillation, and what differences leave out.
    """

    name: str
    items: int
    contaminated: int
    unchecked: int
    left_out: bool
    measures: list[str]
    rows: list[Row]
    contrasts: list[Contrast]
    sentences: list[str]


def claims_of(entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Give what the sentences are about: self-generation and distillation against every baseline.

    Baselines are SFT on the seeds, ICL and distillation from a teacher without demonstrations; where there is none,
    the pretrained model. Of a baseline with several entries, the last outer epoch counts.
    """
    last = {entry.method: entry for entry in entries}.values()
    baselines = [entry for entry in last if entry.kind in (*OF_SEEDS, ICL, CONTROL)]
    baselines = baselines or [entry for entry in last if entry.kind == PRETRAINED]
    return [(entry, baseline) for entry in entries if entry.kind in CLAIMED for baseline in baselines]


def evaluate(
    name: str,
    entries: Sequence[Entry],
    reference: Entry,
    clean: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Evaluated:
    """Compare the entries that were measured in an evaluation with a reference, and where anything is claimed.

    `clean` leaves out the questions that are contaminated in any run; `seed` is that of the bootstrap's resamples.

    Raises:
        InputError: If two entries to be compared have no item in common, or clean leaves nothing of one.
    """
    lines = {entry.name: entry.lines(name) for entry in entries if entry.lines(name)}
    every = [line for of_entry in lines.values() for line in of_entry]
    ways = sorted({line.conditions for line in every if line.conditions})
    if len(ways) > 1:
        raise InputError(
            f"compare: {name!r} was measured in different ways, so its figures say nothing about each other: "
            f"{'; '.join(ways)}. Evaluate all runs alike"
        )
    dirty = {line.question for line in every if line.contaminated}
    checked = {line.question for line in every if line.outer_epoch > 0 and line.contaminated is not None}
    unchecked = {line.question for line in every if line.outer_epoch > 0} - checked
    if clean:
        lines = {entry: [line for line in of_entry if line.question not in dirty] for entry, of_entry in lines.items()}
        for entry, of_entry in lines.items():
            if not of_entry:
                raise InputError(f"--clean: every item of {name!r} that {entry!r} was measured on is contaminated")
    units = {entry: units_of(of_entry) for entry, of_entry in lines.items()}
    claims = claims_of(entries)
    pairs = [(entry, reference) for entry in entries if entry is not reference]
    pairs += [pair for pair in claims if pair not in pairs]
    equal = [pair for pair in equal_budgets(entries) if _common(*pair, lines)]
    pairs += [pair for pair in equal if pair not in pairs]
    contrasts, sentences = [], []
    for method, other in pairs:
        if method.name not in lines or other.name not in lines:
            continue
        if not _items(lines[method.name]) & _items(lines[other.name]):
            raise InputError(
                f"compare: {method.name!r} ({_folders(method)}) and {other.name!r} ({_folders(other)}) have no "
                f"question of {name!r} in common. Evaluate both on the same file"
            )
        found = [
            contrast_of(measure, method.name, other.name, units, resamples, seed)
            for measure in MEASURES
            if measure in units[method.name] and measure in units[other.name]
        ]
        contrasts += found
        sentences += _left_out(method, other, name, found)
        if (method, other) in claims:
            sentences.append(summary(method.name, other, found))
            if len(claims) <= FEW_CLAIMS:
                sentences += [sentence(contrast) for contrast in found]
        if (method, other) in equal:
            sentences.append(iterative_against_one_shot(method, other, found))
        sentences += style(found) if len(claims) <= FEW_CLAIMS else _style_in_short(found)
    items = _items(every)
    return Evaluated(
        name=name,
        items=len(items),
        contaminated=sum(question in dirty for question, _ in items),
        unchecked=sum(question in unchecked for question, _ in items),
        left_out=clean,
        measures=[measure for measure in MEASURES if any(measure in of_entry for of_entry in units.values())],
        rows=[_row(entry, name, lines[entry.name], units[entry.name]) for entry in entries if entry.name in lines],
        contrasts=contrasts,
        sentences=sentences,
    )


def summary(method: str, baseline: Entry, contrasts: Sequence[Contrast]) -> str:
    """Say whether a method beat a baseline, in which measures, and in which this data cannot tell."""
    said = []
    for conclusion, words in (
        ("better", "better in"),
        ("worse", "worse in"),
        ("cannot tell", "this data cannot tell in"),
    ):
        labels = [MEASURES[contrast.measure].label for contrast in contrasts if contrast.conclusion == conclusion]
        said += [f"{words} {', '.join(labels)}"] if labels else []
    return f"{method} against {baseline.described}: {'; '.join(said) or 'nothing can be said'}."


def iterative_against_one_shot(iterative: Entry, one_shot: Entry, contrasts: Sequence[Contrast]) -> str:
    """Say whether as many candidates in several outer epochs did better than in a single one."""
    spent = f"{one_shot.budget[0]} candidates in {len(iterative.budget)} outer epochs or in one"
    return f"Iterative against one-shot, {spent}: {summary(iterative.name, one_shot, contrasts)}"


def sentence(contrast: Contrast) -> str:
    """Say in words what a contrast found."""
    label, method, other = MEASURES[contrast.measure].label, contrast.method, contrast.reference
    found = contrast.difference
    if found is None:
        return f"{label}: {method} and {other} have fewer than two questions with finite figures; nothing can be said."
    if contrast.conclusion == "cannot tell":
        what = f"{label}: this data cannot tell {method} from {other}"
        if found.standard_error == 0:
            return f"{what}: they are equal in all of {found.questions} questions."
        interval = f"difference {found}"
        detectable = f"it would show a difference from {found.minimum_detectable_effect:.3f} up"
        return f"{what}: {interval}; {detectable}{_seed_sets(contrast, '; better in ', better=True)}."
    low, high = sorted((abs(found.low), abs(found.high)))
    by = f"by {abs(found.difference):.3f} [{low:.3f}, {high:.3f}]"
    agreeing = _seed_sets(contrast, ", in ", better=contrast.conclusion == "better")
    return f"{label}: {method} is {contrast.conclusion} than {other} {by}{agreeing}."


def gains(contrasts: Sequence[Contrast]) -> list[tuple[Contrast, Contrast]]:
    """Give each figure in which a method is better, with the contrast of its informed part; not those without one."""
    by_measure = {contrast.measure: contrast for contrast in contrasts}
    return [
        (contrast, by_measure[informed])
        for contrast in contrasts
        if contrast.conclusion == "better"
        and (informed := INFORMED_PART.get(contrast.measure)) in by_measure
        and by_measure[informed].difference is not None
    ]


def style(contrasts: Sequence[Contrast]) -> list[str]:
    """Say of each figure in which a method is better whether that is style alone, in words that anyone understands."""
    return [_style(*gain) for gain in gains(contrasts)]


def _style_in_short(contrasts: Sequence[Contrast]) -> list[str]:
    said = []
    for more, words in ((False, "style alone, as far as this data shows"), (True, "more than style")):
        found = [gain for gain, informed in gains(contrasts) if (informed.conclusion == "better") == more]
        labels = ", ".join(MEASURES[gain.measure].label for gain in found)
        said += [f"The gain of {found[0].method} over {found[0].reference} is {words}: {labels}."] if found else []
    return said


def _style(contrast: Contrast, informed: Contrast) -> str:
    found, method = informed.difference, contrast.method
    if found is None:
        raise ValueError("nothing is known of an informed part without a difference")
    gain = f"The gain of {method} over {contrast.reference} in {MEASURES[contrast.measure].label} is"
    asked_instead = "when another question is asked instead, which they do not answer"
    low, high = sorted((abs(found.low), abs(found.high)))
    amount = f"{abs(found.difference):.3f} [{low:.3f}, {high:.3f}] ({MEASURES[informed.measure].label})"
    if informed.conclusion == "better":
        return (
            f"{gain} more than style: the same answers gain less {asked_instead}. What is left, {amount}, comes from "
            "the question."
        )
    if informed.conclusion == "worse":
        return (
            f"{gain} style alone: the same answers gain even more {asked_instead}. {method} takes less from the "
            f"question, by {amount}."
        )
    left = f"{found} ({MEASURES[informed.measure].label})"
    return (
        f"{gain} style alone, as far as this data shows: the same answers gain about as much {asked_instead}. What is "
        f"left, {left}, may be chance."
    )


def _seed_sets(contrast: Contrast, before: str, better: bool) -> str:
    """Say in how many seed sets the method is better, or worse; nothing where there are not several."""
    differences = list(contrast.by_seed_set.values())
    if len(differences) < 2:
        return ""
    upwards = MEASURES[contrast.measure].higher_is_better == better
    agreeing = sum(difference > 0 if upwards else difference < 0 for difference in differences)
    return f"{before}{agreeing} of {len(differences)} seed sets"


def _left_out(method: Entry, other: Entry, evaluation: str, contrasts: Sequence[Contrast]) -> list[str]:
    """Say which seed sets only one of the two has, in which measures, and what that means for their difference."""
    both, said = f"{method.name} and {other.name}", []
    for unpaired in dict.fromkeys(tuple(contrast.unpaired) for contrast in contrasts if contrast.unpaired):
        alike = [contrast for contrast in contrasts if tuple(contrast.unpaired) == unpaired]
        where = ", ".join(MEASURES[contrast.measure].label for contrast in alike)
        folders = [
            str(path)
            for entry in (method, other)
            for path, of_run in entry.runs
            if any(line.seeds in unpaired for line in of_run.get(evaluation, []))
        ]
        common = len(alike[0].by_seed_set)
        said.append(
            f"{where}: {both} are compared on the seed sets that both have ({common}); left out, since the other one "
            f"lacks theirs: {', '.join(dict.fromkeys(folders))}."
            if common
            else f"{where}: {both} have no seed set in common, so they are paired by question alone."
        )
    return said


def contrast_of(
    measure: str,
    method: str,
    reference: str,
    units: dict[str, dict[str, dict[Unit, Figure]]],
    resamples: int,
    seed: int,
) -> Contrast:
    """Give a method's difference to another one; the units are those of `units_of`, by method."""
    paired = pair_units(units[method][measure], units[reference][measure])
    found = paired.difference(resamples, seed)
    conclusion = _conclusion(measure, found)
    by_seed_set = paired.by_seed_set()
    return Contrast(measure, method, reference, conclusion, found, paired.not_finite, by_seed_set, paired.unpaired)


def _conclusion(measure: str, found: Difference | None) -> str:
    if found is None:
        return "no data"
    if found.low <= 0 <= found.high:
        return "cannot tell"
    return "better" if (found.low > 0) == MEASURES[measure].higher_is_better else "worse"


def units_of(lines: Sequence[Line]) -> dict[str, dict[Unit, Figure]]:
    """Give the figure of every unit by measure; runs that differ in their random seed alone are averaged."""
    return {
        measure: average_units(
            ((line.seeds, line.question, line.occurrence), _never_rewarded(measure, line.figures[measure]))
            for line in lines
            if measure in line.figures
        )
        for measure in MEASURES
        if any(measure in line.figures for line in lines)
    }


def _never_rewarded(measure: str, figure: Figure) -> Figure:
    worst = MEASURES[measure].worst
    return Figure(worst, figure.weight) if math.isnan(figure.value) and worst is not None else figure


def _row(entry: Entry, evaluation: str, lines: Sequence[Line], units: dict[str, dict[Unit, Figure]]) -> Row:
    return Row(
        method=entry.name,
        kind=entry.kind,
        runs=[str(path) for path, of_run in entry.runs if of_run.get(evaluation)],
        outer_epochs=sorted({line.outer_epoch for line in lines}),
        items=len(_items(lines)),
        values={measure: weighted_mean(figures.values()) for measure, figures in units.items()},
        not_finite={
            measure: sum(measure in line.figures and math.isnan(line.figures[measure].value) for line in lines)
            for measure in units
        },
    )


def _items(lines: Sequence[Line]) -> set[tuple[str, int]]:
    return {(line.question, line.occurrence) for line in lines}


def _common(one: Entry, other: Entry, lines: Mapping[str, Sequence[Line]]) -> bool:
    return bool(_items(lines.get(one.name, [])) & _items(lines.get(other.name, [])))


def _folders(entry: Entry) -> str:
    return ", ".join(str(path) for path, _ in entry.runs)
