"""What a report holds: plain values, read from a run folder by `gather` and shown by `page`.

Texts are as they are in the files; whoever shows them escapes them. None is a figure that does not exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from isara_pl.results.ledger import LedgerRow

Status = Literal["seed", "accepted", "rejected"]
Tone = Literal["good", "bad", "unsure", "neutral"]


@dataclass(frozen=True)
class Finding:
    """A question that a reader has, and its answer.

    Attributes:
        question: E.g. `Did it help?`.
        answer: One or two sentences.
        details: Further sentences.
        tone: Whether the answer is good news.
    """

    question: str
    answer: str
    details: Sequence[str]
    tone: Tone


@dataclass(frozen=True)
class Curve:
    """A figure by outer epoch.

    Attributes:
        name: Its column in metrics.csv.
        label: How readers call it.
        higher_is_better: Its direction; None where neither is.
        outer_epochs: Which outer epochs have it, ascending; 0 is the pretrained model.
        values: One for each of them.
        baselines: Figures of other runs by their names, drawn as lines.
    """

    name: str
    label: str
    higher_is_better: bool | None
    outer_epochs: Sequence[int]
    values: Sequence[float | None]
    baselines: Mapping[str, float]


@dataclass(frozen=True)
class GrownOuterEpoch:
    """What an outer epoch's growth gave.

    Attributes:
        outer_epoch: Which one, from 1.
        candidates: How many were judged.
        accepted: How many entered the pool.
        taken: How many each filter took, in the filters' order.
        trained: Whether it was trained on; the α rule keeps the last one from that.
    """

    outer_epoch: int
    candidates: int
    accepted: int
    taken: Mapping[str, int]
    trained: bool

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
        figures: By the names of `isara_pl.evaluation.diversity.Diversity.compute`.
    """

    outer_epoch: int
    samples: int
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class SampleRow:
    """A sample or rejected candidate in the table.

    Attributes:
        id: Its id.
        status: Seed, accepted or rejected.
        outer_epoch: 0 for a seed.
        question: The question.
        answer: The answer.
        category: Its category, where it has one.
        filter: The filter that rejected it.
        reason: That filter's words.
        figure: That filter's figure.
        scores: Figures of the filters that an accepted sample passed.
        question_demonstrations: Places in `Report.samples` of the samples that its question was written from; -1 for
            one that is not in the run's files.
        answer_demonstrations: Places of those that its answer was written from.
        flags: Why it is worth a look, in words; empty for most.
        x: Its place on the map; None where it is not on it.
        y: The other coordinate.
    """

    id: str
    status: Status
    outer_epoch: int
    question: str
    answer: str
    category: str | None
    filter: str | None
    reason: str | None
    figure: float | None
    scores: Mapping[str, float]
    question_demonstrations: Sequence[int]
    answer_demonstrations: Sequence[int]
    flags: Sequence[str]
    x: float | None
    y: float | None


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    Attributes:
        title: Name of the run folder.
        findings: The headline, in reading order.
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
    """

    title: str
    findings: Sequence[Finding]
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
