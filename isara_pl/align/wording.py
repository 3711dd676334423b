"""A decision in sentences for people, and as a table."""

from collections.abc import Mapping

from isara_pl.align.contestants import ICL
from isara_pl.align.decision import Decision, Standing
from isara_pl.report.contents import duration, listed
from isara_pl.report.verdict import NLL_MEANS, meaning
from isara_pl.results.comparison import Contrast
from isara_pl.results.items import MEASURES
from isara_pl.results.run import PRETRAINED
from isara_pl.results.statistics import Difference

OF_GIVEN_PAIRS = ("truthfulness", "harm_preference")  # evaluations of the part that was held back


def verdict(decision: Decision, called: Mapping[str, str], pairs: int, folds: int) -> list[str]:
    """Say what to use, on what evidence, and what this data cannot tell; the first sentence is what to do.

    Args:
        decision: What was decided.
        called: What each contestant is called in sentences.
        pairs: How many pairs were given.
        folds: Into how many folds they were split.
    """
    label, about = MEASURES[decision.measure].label, meaning(decision.measure)
    winner, candidate = decision.standing(decision.winner), decision.standing(decision.candidate)
    on = (
        f"on {winner.questions} of your {pairs} pairs, none of which the model that it was measured with had seen"
        if decision.evaluation in OF_GIVEN_PAIRS
        else f"on the {winner.questions} questions of the evaluation {decision.evaluation}"
    )
    said = []
    if decision.winner != PRETRAINED:
        gain = _found(winner.to_pretrained)
        said.append(
            f"Use {called[winner.name]}: {on}, it is better than the pretrained model in {about} ({label} {gain})."
        )
        said += _style(decision)
    elif decision.candidate != PRETRAINED:
        said += [
            "Keep the pretrained model: nothing here is shown to answer your questions better.",
            f"{_start(called, candidate)} is better in {about} ({label} {_found(candidate.to_pretrained)}), but makes "
            "your answers no likelier after their own questions than after another pair's, as far as this data can "
            f"tell ({_interval(candidate.informed)} nats a token): what it learned is how your answers sound, whatever "
            "is asked.",
        ]
    else:
        said.append(f"Keep the pretrained model: {on}, nothing is shown to be better in {about} ({label}).")
    if decision.best != decision.candidate:
        best = decision.standing(decision.best)
        found = _found(candidate.to_best)
        of = "" if decision.candidate == PRETRAINED else " of those that are shown to be better"
        said.append(
            f"{_start(called, best)} has the best figure{of}, {_value(best)}, and this data cannot tell "
            f"{called[candidate.name]} from it (difference {found}), which is simpler."
        )
    worse = [s for s in decision.standings if s.to_best and s.to_best.conclusion == "worse" and s.name != PRETRAINED]
    if worse:
        said.append(
            f"Worse than {called[decision.best]}: "
            f"{listed([f'{called[s.name]} (by {_found(s.to_best)})' for s in worse])}."
        )
    detectable = [
        s.to_best.difference.minimum_detectable_effect
        for s in decision.standings
        if s.to_best and s.to_best.difference and s.to_best.conclusion == "cannot tell"
    ]
    if detectable:
        said.append(
            f"What this data cannot tell: differences to the best under about {max(detectable):.3f} in {label}; how "
            "other seeds of the random numbers would do; and whether the questions of your users are like these."
        )
    said.append(
        f"Each model was trained on {folds - 1} of {folds} parts of your pairs"
        f"{' and measured on the last' if decision.evaluation in OF_GIVEN_PAIRS else ''}; the intervals (95 %) are "
        f"over questions, and not corrected for {len(decision.standings)} contestants."
    )
    return [*said, NLL_MEANS] if decision.measure.startswith("answer_nll") else said


def gap(decision: Decision) -> str:
    """Say whether there is anything to distil: what demonstrations in the prompt do for the pretrained model."""
    shown = decision.standing(ICL.name)
    before = decision.standing(PRETRAINED)
    found = shown.to_pretrained
    informed = (
        f" Of the answers' likelihood, their own questions account for {_interval(before.informed)} without and "
        f"{_interval(shown.informed)} with them, in nats a token."
        if shown.informed and before.informed
        else ""
    )
    there_is = found is not None and found.conclusion == "better"
    return (
        f"The nearest pairs in the prompt change {MEASURES[decision.measure].label} by {_found(found)}: there is "
        f"{'something' if there_is else 'nothing shown'} to distil.{informed}"
    )


def table(decision: Decision, called: Mapping[str, str], seconds: Mapping[str, float]) -> list[list[str]]:
    """Give the leaderboard: a head, and a row for each contestant, the best figure first."""
    measure = MEASURES[decision.measure]
    head = ["", f"{measure.label} {'↑' if measure.higher_is_better else '↓'}", "to pretrained", "to the best"]
    head += ["own question ↓", "questions", "took"]
    sign = -1 if measure.higher_is_better else 1

    def place(one: Standing) -> float:
        found = one.to_pretrained.difference if one.to_pretrained else None
        return sign * found.difference if found else 0.0

    rows = [
        [
            f"{one.name}{' *' if one.name == decision.winner else ''}",
            _value(one),
            _found(one.to_pretrained),
            _found(one.to_best),
            _interval(one.informed),
            str(one.questions),
            duration(seconds[one.name]) if one.name in seconds else "-",
        ]
        for one in sorted(decision.standings, key=place)
    ]
    return [head, *rows]


def confirmed(contrast: Contrast | None, name: str, questions: int) -> str:
    """Say what the given held-out file says of the winner, against the pretrained model."""
    if contrast is None or contrast.difference is None:
        return f"The held-out file has too few questions to say anything of {name}."
    label = MEASURES[contrast.measure].label
    said = {
        "better": "confirm it",
        "worse": "contradict it: look at the answers before you use it",
        "cannot tell": "neither confirm nor contradict it",
    }[contrast.conclusion]
    gain = f"{label} {_found(contrast)} against the pretrained model"
    return f"The {questions} questions of the held-out file {said}: {gain}."


def _style(decision: Decision) -> list[str]:
    """Say how much of the winner's gain comes from the questions, where that was measured."""
    gain = decision.informed_gain
    if gain is None or gain.difference is None:
        return []
    part = f"the part that comes from the question ({MEASURES[gain.measure].label} {_found(gain)})"
    return [
        {
            "better": f"It is more than how your answers sound: {part} gains as well.",
            "worse": f"But the gain is in how your answers sound: {part} loses.",
            "cannot tell": f"But the gain is in how your answers sound, as far as this data can tell: {part} is not "
            "shown to change.",
        }[gain.conclusion]
    ]


def _start(called: Mapping[str, str], one: Standing) -> str:
    name = called[one.name]
    return name[0].upper() + name[1:]


def _value(one: Standing) -> str:
    return "-" if one.value is None else f"{one.value:.3f}"


def _found(contrast: Contrast | None) -> str:
    return _interval(contrast.difference if contrast else None)


def _interval(found: Difference | None) -> str:
    return "-" if found is None else str(found)
