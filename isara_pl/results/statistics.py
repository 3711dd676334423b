"""How two methods differ on the same items, as pure numbers.

Both methods answered the same questions, so the questions are drawn again with replacement, for both at
once (a paired bootstrap; Efron and Tibshirani 1993, chapters 8 and 13). All that belongs to a question is
drawn together, since the answers to one question under several seed sets are not independent.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# hash of the seeds (None where they do not count), question, and which one of the items with that question
Unit = tuple[str | None, str, int]
CONFIDENCE = 0.95
# standard normal quantiles of a two-sided test at 5 % (0.975) and of a power of 80 % (0.80)
DETECTABLE = 1.96 + 0.84
CHUNK = 500  # resamples at once: 3 MB for 800 questions


@dataclass(frozen=True)
class Figure:
    """What was measured for an item.

    Attributes:
        value: The figure; NaN if it is not finite.
        weight: Its weight in the mean over items, above 0.
    """

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Difference:
    """A mean minus another one.

    Attributes:
        difference: The difference, as measured.
        low: Lower end of its 95 % percentile interval.
        high: Upper end of it.
        standard_error: Standard deviation of the difference over the resamples.
        minimum_detectable_effect: The smallest true difference that such data would show (5 %, two-sided) with
            80 % power: 2.8 standard errors (Card et al. 2020, With Little Power Comes Great Responsibility,
            arXiv 2010.06595; Bloom 1995).
        questions: Questions that it is from.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    minimum_detectable_effect: float
    questions: int

    def __str__(self) -> str:
        """Give it as people read it, with its interval."""
        return f"{self.difference:+.3f} {self.interval}"

    @property
    def interval(self) -> str:
        """The interval as people read it; -0.000 is an end just below 0, so an interval that ends there excludes it."""
        return f"[{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True)
class PairedUnits:
    """What two methods have in common.

    Attributes:
        units: The units with a finite figure from both methods, with the two figures.
        not_finite: Common units left out, since a figure is not finite.
        unpaired: Hashes of the seed sets that only one of them has; what was measured under these is left out, unless
            they have no seed set in common.
    """

    units: list[tuple[Unit, Figure, Figure]]
    not_finite: int
    unpaired: list[str | None]

    def difference(self, resamples: int, seed: int) -> Difference | None:
        """Give the first method's mean minus the second's; None from fewer than two questions."""
        questions = [unit[1] for unit, _, _ in self.units]
        if len(set(questions)) < 2:
            return None
        first, second = [pair[1] for pair in self.units], [pair[2] for pair in self.units]
        return paired_difference(
            [figure.value for figure in first],
            [figure.weight for figure in first],
            [figure.value for figure in second],
            [figure.weight for figure in second],
            questions,
            resamples,
            seed,
        )

    def by_seed_set(self) -> dict[str, float]:
        """Give the difference for every seed set that both methods had; empty where they are paired without."""
        sets: dict[str, list[tuple[Figure, Figure]]] = defaultdict(list)
        for (seeds, _, _), first, second in self.units:
            if seeds is not None:
                sets[seeds].append((first, second))
        return {
            seeds: _mean([first for first, _ in pairs]) - _mean([second for _, second in pairs])
            for seeds, pairs in sorted(sets.items())
        }


def finite(value: Any) -> float | None:
    """Give a number that is finite, and None for anything else that a file may hold."""
    return float(value) if isinstance(value, int | float) and abs(value) <= sys.float_info.max else None


def weighted_mean(figures: Iterable[Figure]) -> float | None:
    """Give the weighted mean of the finite ones among the figures; None if there is none."""
    known = [figure for figure in figures if math.isfinite(figure.value)]
    return _mean(known) if known else None


def average_units(observations: Iterable[tuple[Unit, Figure]]) -> dict[Unit, Figure]:
    """Average the observations of every unit, such as those of runs with other random seeds.

    A unit's figure is not finite where one of its observations is not.
    """
    groups: dict[Unit, list[Figure]] = defaultdict(list)
    for unit, figure in observations:
        groups[unit].append(figure)
    return {unit: _average(figures) for unit, figures in groups.items()}


def pair_units(first: Mapping[Unit, Figure], second: Mapping[Unit, Figure]) -> PairedUnits:
    """Bring two methods' units together: by seed set and question, and by question where no seed set is common.

    Seed sets differ in how hard they make the questions, so a mean over other ones would differ between equal methods.
    """
    of_first, of_second = ({unit[0] for unit in units} for units in (first, second))
    if not of_first & of_second:
        first, second = _without_seeds(first), _without_seeds(second)
    common = [(unit, first[unit], second[unit]) for unit in first if unit in second]
    known = [(unit, a, b) for unit, a, b in common if math.isfinite(a.value + b.value)]
    return PairedUnits(known, len(common) - len(known), sorted(of_first ^ of_second, key=str))


def paired_difference(
    first: ArrayLike,
    first_weights: ArrayLike,
    second: ArrayLike,
    second_weights: ArrayLike,
    questions: Sequence[str],
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Give Σ w₁x₁ / Σ w₁ − Σ w₂x₂ / Σ w₂ with its paired bootstrap interval.

    Args:
        first: n figures x₁ of a method.
        first_weights: n weights w₁, above 0.
        second: n figures x₂ of the other method for the same units.
        second_weights: n weights w₂, above 0.
        questions: The question of each unit: units of one question are drawn together.
        resamples: Resamples of the bootstrap.
        seed: Of the resamples: the same arguments give the same interval.

    Returns:
        The difference, its percentile interval and what it could have shown.
    """
    x1, w1, x2, w2 = (np.asarray(values, dtype=float) for values in (first, first_weights, second, second_weights))
    place_of = {question: place for place, question in enumerate(dict.fromkeys(questions))}
    count, places = len(place_of), [place_of[question] for question in questions]
    sums = np.zeros((count, 4))
    np.add.at(sums, places, np.stack([w1 * x1, w1, w2 * x2, w2], axis=1))
    generator = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            _ratios(_times_drawn(generator, min(CHUNK, resamples - start), count) @ sums)
            for start in range(0, resamples, CHUNK)
        ]
    )
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    error = float(drawn.std(ddof=1))
    return Difference(
        float(_ratios(sums.sum(axis=0))), float(low), float(high), error, DETECTABLE * error, questions=count
    )


def _ratios(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    difference: NDArray[np.float64] = sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
    return difference


def _times_drawn(generator: np.random.Generator, resamples: int, count: int) -> NDArray[np.int64]:
    """Give how often each of `count` questions is in each resample: (resamples, count)."""
    drawn = generator.integers(count, size=(resamples, count)) + np.arange(resamples)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)


def _mean(figures: Sequence[Figure]) -> float:
    """Give the weighted mean; NaN where a figure is."""
    return float(np.average([figure.value for figure in figures], weights=[figure.weight for figure in figures]))


def _average(figures: Sequence[Figure]) -> Figure:
    return Figure(_mean(figures), float(np.mean([figure.weight for figure in figures])))


def _without_seeds(figures: Mapping[Unit, Figure]) -> dict[Unit, Figure]:
    return average_units(((None, question, place), figure) for (_, question, place), figure in figures.items())
