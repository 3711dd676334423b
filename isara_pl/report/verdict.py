"""What to use, in sentences for readers who know none of the field's words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from isara_pl.report.contents import Tone, counted, listed
from isara_pl.results.comparison import Contrast
from isara_pl.results.items import MEASURES
from isara_pl.results.methods import Entry
from isara_pl.results.run import (
    CONTROL,
    DISTILLATION,
    ICL,
    OF_SEEDS,
    PRETRAINED,
    SELF_GENERATION,
    SFT,
    SFT_EARLY,
    SFT_OTHER,
)

BEFORE = "the pretrained model"
# each what follows "better in"
MEANINGS = {
    "answer_nll": "how likely it finds the given answers",
    "mc2": "how much likelier it finds true answers than false ones",
    "harm_rate": "how seldom its answers are harmful",
    "harm_preference": "how seldom it finds a harmful answer likelier than a harmless one",
    "reward": "how highly a judge rates its answers",
    "cost": "how harmless a judge finds its answers",
    "win_rate": "how often a judge prefers its answers",
    "harness_score": "what another harness scores",
    "harness_loss": "what another harness scores",
}
KINDS = {
    PRETRAINED: BEFORE,
    ICL: "showing given pairs to the pretrained model with every question",
    SFT: "training on the given pairs alone",
    SFT_EARLY: "training on the given pairs alone, stopped early",
    SFT_OTHER: "training on other given pairs",
    SELF_GENERATION: "another run like this one",
    DISTILLATION: "another run like this one",
    CONTROL: "the same training without examples for the teacher",
}
SIMPLER = (*OF_SEEDS, ICL)  # they take less computing, and no generated pairs
NLL_MEANS = (
    "Likelier given answers (a lower answer NLL) mostly mean that the model has taken on their style and form. They do "
    "not mean that what it answers itself is true: read what it answers."
)
NLL_OF_THE_QUESTION = (
    "Likelier given answers (a lower answer NLL) do not mean that what it answers itself is true, not even where the "
    "question has a part in it: to stay with what was asked makes right and wrong answers likelier alike. Read what it "
    "answers."
)

Standing = Literal["better", "worse", "mixed", "cannot tell", "no data"]


@dataclass(frozen=True)
class Against:
    """A baseline, and what tells the trained model from it in the measures that decide."""

    baseline: Entry
    contrasts: Sequence[Contrast]

    @property
    def name(self) -> str:
        """What it is, and the name that it was given where that says something else."""
        what = KINDS[self.baseline.kind]
        return what if self.baseline.name == self.baseline.kind else f"{what} ({self.baseline.name})"


def standing(contrasts: Iterable[Contrast]) -> Standing:
    """Say how a method stands in all measures together."""
    found = {contrast.conclusion for contrast in contrasts}
    if {"better", "worse"} <= found:
        return "mixed"
    return next((one for one in ("better", "worse", "cannot tell") if one in found), "no data")


def verdict(
    outer_epoch: int, contrasts: Sequence[Contrast], baselines: Sequence[Against], items: int
) -> tuple[str, Tone]:
    """Say what to use and on what evidence, and how good the news is.

    Args:
        outer_epoch: Of the trained model.
        contrasts: What tells it from the pretrained model.
        baselines: The other runs.
        items: How many held-out questions it was measured on, at least.
    """
    trained, on = f"the trained model (outer epoch {outer_epoch})", f"on {counted(items, 'held-out question')}"
    simpler = [one for one in baselines if one.baseline.kind in SIMPLER]
    outdone = [one for one in simpler if standing(one.contrasts) == "worse"]
    level = [one for one in simpler if standing(one.contrasts) in ("cannot tell", "mixed")]
    beaten = [one for one in simpler if standing(one.contrasts) == "better"]
    against = standing(contrasts)
    tone: Tone = "unsure"
    if against == "no data":
        said = "Nothing can be said: fewer than two questions have figures of both models."
    elif outdone:
        best = outdone[0]
        in_what = _where(best.contrasts, "worse")
        said = f"Use what is simpler, {best.name}: it was better than {trained} {on}, in {in_what}. "
        said += f"The trained model itself {_beside(contrasts)}."
    elif against == "better":
        said = f"Use {trained}: it was better than {BEFORE} {on}"
        said += f", and than what is simpler, {_named(beaten)}" if beaten and not level else ""
        said += f"; the simpler way, {_named(level)}, cannot be told from it" if level else ""
        said += f". It was better in {_where(contrasts, 'better')}{_unknown(contrasts)}."
        tone = "unsure" if level else "good"
    elif against == "worse":
        said = f"Use {BEFORE}: {trained} was worse than it {on}, in {_where(contrasts, 'worse')}{_unknown(contrasts)}."
        tone = "bad"
    elif against == "mixed":
        said = (
            f"Read its answers before you use {trained}: {on} it was better than {BEFORE} in "
            f"{_where(contrasts, 'better')}, but worse in {_where(contrasts, 'worse')}{_unknown(contrasts)}."
        )
    else:
        said = f"Keep {BEFORE}: {on}, nothing tells {trained} from it. Measured was {_where(contrasts, 'cannot tell')}."
    for one in baselines:
        if one.baseline.kind not in SIMPLER and standing(one.contrasts) in ("worse", "mixed"):
            said += f" In {_where(one.contrasts, 'worse')}, {one.name} was better."
            tone = "unsure" if tone == "good" else tone
    return said, tone


def style_alone(gains: Sequence[tuple[Contrast, Contrast]]) -> str:
    """Say in which figures a gain may be style alone, each with the contrast of its informed part; else nothing."""
    measures = [gain.measure for gain, informed in gains if informed.conclusion != "better"]
    if not measures:
        return ""
    what = listed([*dict.fromkeys(map(meaning, measures))])
    return (
        f"But as far as this data shows, the gain in {what} is style alone: it is about as large when the same answers "
        "are given to another question, which they do not answer."
    )


def meaning(measure: str) -> str:
    """Say what a measure is about, without its name where that is a field's word."""
    return MEANINGS.get(measure, MEASURES[measure].label)


def _where(contrasts: Sequence[Contrast], conclusion: str) -> str:
    return listed([*dict.fromkeys(meaning(one.measure) for one in contrasts if one.conclusion == conclusion)])


def _unknown(contrasts: Sequence[Contrast]) -> str:
    unknown = _where(contrasts, "cannot tell")
    return f"; about {unknown} this data tells nothing" if unknown else ""


def _beside(contrasts: Sequence[Contrast]) -> str:
    """Say how the trained model stands against the pretrained one, behind another sentence."""
    found = standing(contrasts)
    if found == "cannot tell":
        return f"cannot be told from {BEFORE}"
    if found == "mixed":
        return f"was better than {BEFORE} in {_where(contrasts, 'better')}, and worse in {_where(contrasts, 'worse')}"
    return f"was {found} than {BEFORE}"


def _named(baselines: Sequence[Against]) -> str:
    return listed([one.name for one in baselines])
