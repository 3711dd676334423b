"""What a report holds: plain values, read from a run folder by `gather`, and how sentences put them.

Texts are as they are in the files; whoever shows them escapes them. None is a figure that does not exist.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from isara_pl.results.answers import Answered
from isara_pl.results.categories import OfCategory
from isara_pl.results.ledger import LedgerRow

Status = Literal["seed", "accepted", "rejected"]
Tone = Literal["good", "bad", "unsure", "neutral"]


@dataclass(frozen=True)
class Finding:
    """A question that a reader has, and its answer."""

    question: str  # e.g. `Did it help?`
    answer: str  # one or two sentences
    details: Sequence[str]  # further sentences
    tone: Tone  # whether the answer is good news


@dataclass(frozen=True)
class Curve:
    """A figure by outer epoch."""

    name: str  # its column in metrics.csv
    label: str  # how readers call it
    higher_is_better: bool | None  # None where neither is
    outer_epochs: Sequence[int]  # those that have it, ascending; 0 is the pretrained model
    values: Sequence[float | None]  # one for each of them
    baselines: Mapping[str, float]  # figures of other runs by their names, drawn as lines


@dataclass(frozen=True)
class GrownOuterEpoch:
    """What an outer epoch's growth gave."""

    outer_epoch: int  # from 1
    candidates: int  # those that were judged
    accepted: int
    taken: Mapping[str, int]  # how many each filter took, in the filters' order
    trained: bool  # whether it was trained on; the α rule keeps the last one from that

    @property
    def novelty(self) -> float | None:
        """Accepted ÷ candidates."""
        return self.accepted / self.candidates if self.candidates else None


@dataclass(frozen=True)
class DiversityRow:
    """The diversity of an outer epoch's accepted samples; the seeds are outer epoch 0.

    Attributes:
        outer_epoch: Which one.
        samples: How many samples.
        figures: By the names of `isara_pl.evaluation.diversity.FIGURES`.
    """

    outer_epoch: int
    samples: int
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class SampleRow:
    """A sample or rejected candidate in the table.

    Demonstrations are places in `Report.samples`; -1 is one that is not in the run's files.
    """

    id: str
    status: Status
    outer_epoch: int  # 0 for a seed
    question: str
    answer: str
    category: str | None
    filter: str | None  # the filter that rejected it, with its words and its figure
    reason: str | None
    figure: float | None
    scores: Mapping[str, float]  # figures of the filters that an accepted sample passed
    question_demonstrations: Sequence[int]  # those that its question was written from
    answer_demonstrations: Sequence[int]
    flags: Sequence[str]  # why it is worth a look, in words; empty for most
    x: float | None  # its place on the map; None where it is not on it
    y: float | None


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    Attributes:
        title: Name of the run folder.
        about: When, which model, from what and measured on what: name and value.
        findings: The headline, in reading order; the first says what to use.
        answers: What the models answered to held-out questions, the worst first.
        curves: Figures by outer epoch, the most telling first.
        grown: Every outer epoch that was grown.
        alpha: The novelty under which the run stops; None where that is not known.
        spent: What each stage of each outer epoch cost.
        totals: What each outer epoch cost.
        diversity: By outer epoch.
        samples: Seeds and accepted samples in the order of the pool, then rejected candidates.
        worth_a_look: Places in `samples` of those that have flags, the worst first.
        map_note: Why there is no map, or how it was made.
        facts: Options and versions: name and value.
        categories: What training did in each category of items, by evaluation: trained minus pretrained.
    """

    title: str
    about: Sequence[tuple[str, str]]
    findings: Sequence[Finding]
    answers: Sequence[Answered]
    curves: Sequence[Curve]
    grown: Sequence[GrownOuterEpoch]
    alpha: float | None
    spent: Sequence[LedgerRow]
    totals: Sequence[LedgerRow]
    diversity: Sequence[DiversityRow]
    samples: Sequence[SampleRow]
    worth_a_look: Sequence[int]
    map_note: str
    facts: Sequence[tuple[str, str]]
    categories: Mapping[str, Sequence[OfCategory]] = field(default_factory=dict)


# figures of diversity that are shares
SHARES = (
    *(f"distinct_{n}_{part}" for part in ("questions", "answers") for n in (1, 2)),
    *("refusal_rate", "copy_rate"),
)
UNKNOWN = "–"
TRAINED = "trained"  # the model after the last outer epoch that was measured
LONGEST_QUOTE = 100  # characters


def quoted(text: str) -> str:
    """Give what a model or a file says in quotation marks on one line, shortened where it is long."""
    line = " ".join(text.split())
    return f"“{line if len(line) <= LONGEST_QUOTE else line[: LONGEST_QUOTE - 1].rstrip() + '…'}”"


def count(number: int) -> str:
    """Give a whole number, its thousands set apart."""
    return f"{number:,}"


def figure(value: float | None) -> str:
    """Give a figure to four digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def share(value: float | None) -> str:
    """Give a share in per cent."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{100 * value:.3g} %"


def duration(seconds: float | None) -> str:
    """Give a time in its two largest units.

    Example:
        >>> duration(0.25), duration(75), duration(7384)
        ('0.25 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def listed(parts: list[str]) -> str:
    """Give parts as an enumeration; nothing where there are none."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def counted(number: int, noun: str) -> str:
    """Give a number of things; more than one have an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def to_accept_more(taken: Mapping[str, int]) -> str:
    """Say what to change so that an outer epoch accepts more than after what each filter took; ends a sentence."""
    most = max(taken, key=lambda name: taken[name], default=None)
    mends = {
        "Unfinished": "raise max_new_tokens of data.question_sampling and data.answer_sampling (Unfinished took most),",
        "NoRoom": "lower max_new_tokens of data.question_sampling and data.answer_sampling (NoRoom took most),",
    }
    mend = mends.get(most or "", "loosen the filter that took most,")
    return (
        f"lower alpha_stopping.alpha, {mend} raise the temperature of data.question_sampling, or use a stronger model"
    )
