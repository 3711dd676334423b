"""An evaluation's figures by category of its items, of those categories that have enough of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isara_pl.results.comparison import Contrast, contrast_of, units_of
from isara_pl.results.items import MEASURES, Line
from isara_pl.results.statistics import weighted_mean

ENOUGH = 20  # items of a category: a mean over fewer says little


@dataclass(frozen=True)
class OfCategory:
    """What was measured in a category.

    Attributes:
        category: Its name.
        items: Items measured in any of the methods.
        values: Means by method and measure; None where no item has a finite figure.
        contrasts: The differences of every other method to the reference.
    """

    category: str
    items: int
    values: dict[str, dict[str, float | None]]
    contrasts: list[Contrast]


def by_category(
    lines: Mapping[str, Sequence[Line]], reference: str, resamples: int = 10_000, seed: int = 0
) -> list[OfCategory]:
    """Give each category with at least `ENOUGH` items, the one with the most items first.

    Args:
        lines: The items that each method was measured on, in one evaluation.
        reference: The method that the others are held against.
        resamples: Resamples of the bootstrap.
        seed: Of the resamples.
    """
    items: dict[str, set[tuple[str, int]]] = {}
    for line in (line for of_method in lines.values() for line in of_method if line.category):
        items.setdefault(str(line.category), set()).add((line.question, line.occurrence))
    found = []
    for category in sorted((name for name in items if len(items[name]) >= ENOUGH), key=lambda n: (-len(items[n]), n)):
        units = {
            method: units_of([line for line in of_method if line.category == category])
            for method, of_method in lines.items()
        }
        contrasts = [
            contrast_of(measure, method, reference, units, resamples, seed)
            for method in units
            for measure in MEASURES
            if method != reference and measure in units[method] and measure in units.get(reference, {})
        ]
        values = {
            method: {measure: weighted_mean(figures.values()) for measure, figures in of_method.items()}
            for method, of_method in units.items()
        }
        found.append(OfCategory(category, len(items[category]), values, contrasts))
    return found
