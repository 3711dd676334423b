"""Which candidates enter the pool: filters judge one after the other, some after a look at the whole batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from isara_pl.growth.pool import Rejected, SamplePool, Verdict
from isara_pl.growth.samples import Sample


@runtime_checkable
class CandidateFilter(Protocol):
    """Anything that judges candidates: a callback with this method is a filter of the loop."""

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Accept or reject a candidate, given all that was accepted before it."""


@runtime_checkable
class BatchFilter(Protocol):
    """A filter that computes for many candidates at once what it judges each of them by, such as one with a model."""

    def on_candidates(self, candidates: Sequence[Sample], pool: SamplePool) -> None:
        """Hear of a batch, before any verdict on it; after a resume the same ones, those that were judged included."""


def announce(candidates: Sequence[Sample], filters: Sequence[CandidateFilter], pool: SamplePool) -> None:
    """Let the filters that want it look at a whole batch."""
    for one in filters:
        if isinstance(one, BatchFilter):
            one.on_candidates(candidates, pool)


def judge(candidate: Sample, filters: Sequence[CandidateFilter], pool: SamplePool) -> Sample | Rejected:
    """Give a candidate with the figures of all filters, or what the first one says that rejects it."""
    scores = {}
    for one in filters:
        name, verdict = type(one).__name__, one.verdict(candidate, pool)
        if verdict.reason is not None:
            return Rejected(candidate, name, verdict)
        scores[name] = verdict.figure
    return replace(candidate, scores=scores)
