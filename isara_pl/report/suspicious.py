"""Which accepted samples are worth a look, and why, in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from isara_pl.evaluation.refusals import is_refusal
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import count_words, wording
from isara_pl.report.claims import Claims
from isara_pl.report.contents import counted, quoted
from isara_pl.results.items import Touch
from isara_pl.results.statistics import finite

FEW_PAIRS = 8
REPEATING = 0.5  # share of distinct pairs of words below which an answer repeats itself
MUCH = 2  # times as long as the longest answer of a seed, or the shortest one as long as it
EXTREME = 3  # samples that are named for being the nearest, or the farthest
NEAR_DUPLICATE = "NearDuplicate"
TOUCHES = {
    "ngram": "shares a run of words with",
    "rouge": "asks in nearly the same words (ROUGE-L {figure:.3f}) as",
    "embedding": "asks nearly the same (cosine {figure:.3f}) as",
}
Flagged = list[tuple[int, str]]  # places of samples, the worst first, and why: what follows "it"


@dataclass(frozen=True)
class Traits:
    """What can be seen of a sample's answer by its text alone."""

    words: int  # as `isara_pl.growth.words.count_words` counts them
    refusal: bool  # whether it begins as refusals do
    copy_of: str | None  # id of a demonstration with the same answer, but for case, punctuation and spacing
    distinct_pairs: float | None  # their share among all pairs of neighbouring words; None where there are few


def traits_of(samples: Sequence[Sample]) -> list[Traits]:
    """Give the traits of each sample of a pool: demonstrations are among them."""
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


@dataclass(frozen=True)
class Look:
    """What is worth a look."""

    reasons: Mapping[int, Sequence[str]]  # why, by the place of the sample in the pool; the words that follow "it"
    worst_first: Sequence[int]  # these places: the worst of each kind, then the second of each, and so on
    counts: Mapping[str, int]  # samples of each kind, by the words that follow the number


def worth_a_look(
    samples: Sequence[Sample],
    traits: Sequence[Traits],
    touches: Mapping[str, Sequence[Touch]],
    seed_cosines: Sequence[float] | None,
    claims: Claims,
) -> Look:
    """Find suspicious accepted samples of a pool; where any was accepted, at least one is named.

    Args:
        samples: The pool.
        traits: Traits of each.
        touches: Evaluation items that samples touch, by the samples' ids.
        seed_cosines: Cosine of each question with the nearest seed's; None is not known.
        claims: What answers claim that what they were written from does not.
    """
    accepted = [place for place, sample in enumerate(samples) if sample.outer_epoch > 0]
    invented = ((number, place, reason) for place, (number, reason) in claims.invented.items())
    suspicious = {  # the worst kind first
        "that may contradict their nearest seed": [*claims.contradicting.items()],
        "with numbers or names from nowhere": _worst_first(invented),
        "touching an evaluation item": _touching(accepted, samples, touches),
        "with the answer of a demonstration": _copying(accepted, traits),
        "repeating words": _repeating(accepted, traits),
        "refusing to answer": _refusing(accepted, traits),
        "with an answer far longer or shorter than any seed's": _unlike_in_length(accepted, samples, traits),
    }
    extremes = [_nearest(accepted, samples), _farthest(accepted, seed_cosines)]
    kinds = [*suspicious.values(), *extremes]
    if not any(kinds):
        kinds = [_longest(accepted, traits)]
    reasons: dict[int, list[str]] = {}
    ranks: dict[int, tuple[int, int]] = {}
    for number, flagged in enumerate(kinds):
        for rank, (place, reason) in enumerate(flagged):
            reasons.setdefault(place, []).append(reason)
            ranks[place] = min(ranks.get(place, (rank, number)), (rank, number))
    counts = {kind: len(flagged) for kind, flagged in suspicious.items() if flagged}
    return Look(reasons, sorted(ranks, key=lambda place: ranks[place]), counts)


def _distinct_pairs(words: Sequence[str]) -> float | None:
    pairs = [*pairwise(words)]
    return len(set(pairs)) / len(pairs) if len(pairs) >= FEW_PAIRS else None


def _worst_first(flagged: Iterable[tuple[float, int, str]]) -> Flagged:
    """Order by the figure, the highest first; of equal ones the first sample."""
    return [(place, reason) for _, place, reason in sorted(flagged, key=lambda each: (-each[0], each[1]))]


def _touching(accepted: Sequence[int], samples: Sequence[Sample], touches: Mapping[str, Sequence[Touch]]) -> Flagged:
    flagged = []
    for place in accepted:
        items = touches.get(samples[place].id)
        if items:
            first, more = items[0], f", and touches {len(items) - 1} more" if len(items) > 1 else ""
            how = TOUCHES.get(first.kind, "touches").format(figure=first.figure)
            reason = f"{how} the evaluation item {first.item}, {quoted(first.item_question)}{more}"
            flagged.append((len(items), place, reason))
    return _worst_first(flagged)


def _copying(accepted: Sequence[int], traits: Sequence[Traits]) -> Flagged:
    return [
        (place, f"has the answer of {traits[place].copy_of}, one of its demonstrations")
        for place in accepted
        if traits[place].copy_of is not None
    ]


def _repeating(accepted: Sequence[int], traits: Sequence[Traits]) -> Flagged:
    shares = ((traits[place].distinct_pairs, place) for place in accepted)
    return _worst_first(
        (-share, place, f"repeats itself: only {share:.0%} of its answer's pairs of words are distinct")
        for share, place in shares
        if share is not None and share < REPEATING
    )


def _refusing(accepted: Sequence[int], traits: Sequence[Traits]) -> Flagged:
    return [(place, "refuses to answer, by its first words") for place in accepted if traits[place].refusal]


def _unlike_in_length(accepted: Sequence[int], samples: Sequence[Sample], traits: Sequence[Traits]) -> Flagged:
    of_seeds = [of.words for of, sample in zip(traits, samples, strict=True) if sample.outer_epoch == 0]
    if not of_seeds:
        return []
    fewest, most = min(of_seeds), max(of_seeds)
    ratios = (
        (max(traits[place].words / max(most, 1), fewest / max(traits[place].words, 1)), place) for place in accepted
    )
    return _worst_first(
        (
            ratio,
            place,
            f"has an answer of {counted(traits[place].words, 'word')}; those of the seeds have {fewest} to {most}",
        )
        for ratio, place in ratios
        if ratio > MUCH
    )


def _nearest(accepted: Sequence[int], samples: Sequence[Sample]) -> Flagged:
    scores = ((finite(samples[place].scores.get(NEAR_DUPLICATE)), place) for place in accepted)
    return _worst_first(
        (score, place, f"is one of the accepted questions that are nearest to a known one (ROUGE-L {score:.3f})")
        for score, place in scores
        if score is not None
    )[:EXTREME]


def _farthest(accepted: Sequence[int], seed_cosines: Sequence[float] | None) -> Flagged:
    if seed_cosines is None:
        return []
    return _worst_first(
        (
            -seed_cosines[place],
            place,
            f"is one of the accepted questions that are farthest from all seeds (cosine {seed_cosines[place]:.3f} "
            "with the nearest)",
        )
        for place in accepted
    )[:EXTREME]


def _longest(accepted: Sequence[int], traits: Sequence[Traits]) -> Flagged:
    return _worst_first(
        (traits[place].words, place, f"has the longest answer, of {counted(traits[place].words, 'word')}")
        for place in accepted
    )[:1]
