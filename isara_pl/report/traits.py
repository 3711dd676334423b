"""What can be seen of a sample by its texts alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from isara_pl.evaluation.diversity import is_refusal
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import count_words, wording


@dataclass(frozen=True)
class Traits:
    """What can be seen of a sample's answer.

    Attributes:
        words: Words of the answer (`isara_pl.growth.words.count_words`).
        refusal: Whether it begins as refusals do.
        copy_of: Id of a demonstration with the same answer, but for case, punctuation and spacing.
        distinct_pairs: Share of distinct pairs among all pairs of neighbouring words; None where there are few.
    """

    words: int
    refusal: bool
    copy_of: str | None
    distinct_pairs: float | None


FEW_PAIRS = 8


def traits_of(samples: Sequence[Sample]) -> list[Traits]:
    """Give the traits of each sample.

    Args:
        samples: All samples of a pool: demonstrations are among them.
    """
    wordings = {sample.id: wording(sample.answer) for sample in samples}
    return [
        Traits(
            words=count_words(sample.answer),
            refusal=is_refusal(sample.answer),
            copy_of=next(
                (
                    name
                    for name in sample.answer_demonstrations
                    if name in wordings and wordings[name] == wordings[sample.id]
                ),
                None,
            ),
            distinct_pairs=_distinct_pairs(wordings[sample.id]),
        )
        for sample in samples
    ]


def _distinct_pairs(words: Sequence[str]) -> float | None:
    pairs = [*pairwise(words)]
    return len(set(pairs)) / len(pairs) if len(pairs) >= FEW_PAIRS else None
