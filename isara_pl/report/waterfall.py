"""What became of the candidates of each outer epoch."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from isara_pl.growth.pool import Rejected
from isara_pl.growth.samples import Sample
from isara_pl.report.contents import GrownOuterEpoch


def grown_outer_epochs(
    samples: Sequence[Sample], rejected: Sequence[Rejected], described: Any, trained: Callable[[int], bool]
) -> list[GrownOuterEpoch]:
    """Count candidates, accepted ones and what each filter took, by outer epoch.

    Args:
        samples: The pool.
        rejected: Rejected candidates.
        described: The filters in their order, as `isara_pl.run.conditions.described` gives them; None is not known.
        trained: Whether an outer epoch was trained on.
    """
    filters = _in_order(samples, rejected, described)
    accepted = Counter(sample.outer_epoch for sample in samples if sample.outer_epoch > 0)
    taken = Counter((entry.candidate.outer_epoch, entry.filter) for entry in rejected)
    found = []
    for number in sorted({*accepted, *(outer_epoch for outer_epoch, _ in taken)}):
        by_filter = {name: taken[number, name] for name in filters}
        candidates = accepted[number] + sum(by_filter.values())
        found.append(GrownOuterEpoch(number, candidates, accepted[number], by_filter, trained(number)))
    return found


def _in_order(samples: Sequence[Sample], rejected: Sequence[Rejected], described: Any) -> list[str]:
    """Give the filters in the order that they were asked in; one that is found in the files alone comes last."""
    stated = [str(name).partition("(")[0] for name in described] if isinstance(described, list) else []
    passed = [name for sample in samples for name in sample.scores]
    return list(dict.fromkeys([*stated, *passed, *(entry.filter for entry in rejected)]))
