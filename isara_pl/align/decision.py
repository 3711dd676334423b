"""The decision: of what is shown to be better than the pretrained model, the simplest not shown worse than the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isara_pl.errors import InputError
from isara_pl.results.comparison import Contrast, evaluate
from isara_pl.results.items import INFORMED_PART, MEASURES
from isara_pl.results.methods import Entry, pool_runs
from isara_pl.results.run import PRETRAINED, Run
from isara_pl.results.statistics import Difference, Figure, Unit, average_units, pair_units

INFORMED = "answer_nll_informed"


@dataclass(frozen=True)
class Standing:
    """How a contestant did.

    Attributes:
        name: The contestant.
        value: Its mean; None where no figure is finite.
        questions: Held-out questions that it was measured on.
        to_pretrained: Its difference to the pretrained model; None for that itself.
        to_best: Its difference to the best one; None for that itself.
        informed: NLL of the answers minus their NLL after another item's question; None where it was not measured.
    """

    name: str
    value: float | None
    questions: int
    to_pretrained: Contrast | None
    to_best: Contrast | None
    informed: Difference | None


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Attributes:
        measure: By what.
        evaluation: Which evaluation measured it.
        standings: Of all contestants, from the simplest to the least simple.
        best: Who has the best figure of those that are shown to be better than the pretrained model and whose answers
            follow from the questions; where there is none, of those that are shown to be better; else of all.
        candidate: The simplest of these that is not shown to be worse than the best; the pretrained model where none
            is shown to be better.
        winner: The candidate, or the pretrained model where the candidate's answers do not follow from the questions.
        informed_gain: The winner's difference to the pretrained model in the part of the measure that comes from the
            question; None where that was not measured, and for the pretrained model.
    """

    measure: str
    evaluation: str
    standings: Sequence[Standing]
    best: str
    candidate: str
    winner: str
    informed_gain: Contrast | None = None

    def standing(self, name: str) -> Standing:
        """Give a contestant's standing."""
        return next(standing for standing in self.standings if standing.name == name)


def decide(
    runs: Sequence[tuple[str, Run]], order: Sequence[str], measure: str, resamples: int = 10_000, seed: int = 0
) -> Decision:
    """Decide among contestants from what their runs measured on the pairs that each did not see.

    Differences are paired over all held-out answers, with intervals of a bootstrap over questions; they are not
    corrected for the number of contestants. Whoever is not shown to be better than the pretrained model cannot win, nor
    keep another one from winning: a wide interval is no merit.

    Args:
        runs: Finished runs, each with its contestant's name; those of one contestant are of different folds.
        order: Names from the simplest to the least simple; the first is the pretrained model's.
        measure: What decides, one of `MEASURES`.
        resamples: Resamples of the bootstrap.
        seed: Of the resamples.

    Raises:
        InputError: If no run has the measure.
    """
    entries = {entry.name: entry for entry in pool_runs(runs, every_outer_epoch=False)}
    evaluation = evaluation_with(measure, [*entries.values()])
    competing = [entries[name] for name in order if name in entries]
    baseline = entries[PRETRAINED]
    evaluated = evaluate(evaluation, competing, baseline, resamples=resamples, seed=seed)
    to_pretrained = {c.method: c for c in evaluated.contrasts if (c.measure, c.reference) == (measure, PRETRAINED)}
    sign = 1 if MEASURES[measure].higher_is_better else -1
    gains = {name: sign * c.difference.difference for name, c in to_pretrained.items() if c.difference} | {
        PRETRAINED: 0.0
    }
    informed = {entry.name: _informed(entry, evaluation, resamples, seed) for entry in competing}
    shown = [entry.name for entry in competing if _better(to_pretrained.get(entry.name))]
    following = [name for name in shown if _follow(informed[name])]
    eligible = following or shown
    best = max(eligible or gains, key=lambda name: gains[name])  # of equal ones the simplest
    against = evaluate(evaluation, competing, entries[best], resamples=resamples, seed=seed).contrasts
    to_best = {c.method: c for c in against if (c.measure, c.reference) == (measure, best)}
    rows = {row.method: row for row in evaluated.rows}
    standings = [
        Standing(
            name=entry.name,
            value=rows[entry.name].values.get(measure),
            questions=_measured(entry, evaluation, measure) or rows[entry.name].items,
            to_pretrained=to_pretrained.get(entry.name),
            to_best=to_best.get(entry.name),
            informed=informed[entry.name],
        )
        for entry in competing
    ]
    alike = ("better", "cannot tell")
    candidate = next(
        (n for n in eligible if n == best or (n in to_best and to_best[n].conclusion in alike)), PRETRAINED
    )
    winner = candidate if following else PRETRAINED
    part = INFORMED_PART.get(measure, INFORMED)
    of_winner = [c for c in evaluated.contrasts if (c.method, c.measure, c.reference) == (winner, part, PRETRAINED)]
    return Decision(measure, evaluation, standings, best, candidate, winner, of_winner[0] if of_winner else None)


def evaluation_with(measure: str, entries: Sequence[Entry]) -> str:
    """Give the evaluation that has a measure. Raises InputError, with the measures that there are, if none has."""
    found = {
        name
        for entry in entries
        for _, evaluations in entry.runs
        for name, lines in evaluations.items()
        if any(measure in line.figures for line in lines)
    }
    if not found:
        known = {
            name
            for entry in entries
            for _, evaluations in entry.runs
            for lines in evaluations.values()
            for line in lines
            for name in line.figures
        }
        allowed = ", ".join(name for name in MEASURES if name in known)
        raise InputError(f"--decide_by: no run has {measure}. Allowed with these pairs: {allowed}")
    return min(found)


def _better(contrast: Contrast | None) -> bool:
    return contrast is not None and contrast.conclusion == "better"


def _follow(informed: Difference | None) -> bool:
    """Say whether answers are shown to be likelier after their own questions; also where nobody measured it."""
    return informed is None or informed.high < 0


def _measured(entry: Entry, evaluation: str, measure: str) -> int:
    """Count the items that have a measure: one without incorrect answers has no MC2, and none a fitted figure."""
    found = [line for line in entry.lines(evaluation) if measure in line.figures]
    return len({(line.seeds, line.question, line.occurrence) for line in found})


def _informed(entry: Entry, evaluation: str, resamples: int, seed: int) -> Difference | None:
    observed = [
        ((line.seeds, line.question, line.occurrence), line.figures[INFORMED])
        for line in entry.lines(evaluation)
        if INFORMED in line.figures
    ]
    if not observed:
        return None
    units = average_units(observed)
    nothing: Mapping[Unit, Figure] = {unit: Figure(0.0, figure.weight) for unit, figure in units.items()}
    return pair_units(units, nothing).difference(resamples, seed)
