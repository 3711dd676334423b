"""What training on one domain does to all of them: a domain is a category of the items (the paper's Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from isara_pl.results.compare import Section, Table, measure_label
from isara_pl.results.comparison import Contrast, contrast_of, units_of
from isara_pl.results.items import MEASURES, SCALED, Line
from isara_pl.results.run import PRETRAINED, Run
from isara_pl.results.statistics import weighted_mean

SHOWN = ("answer_nll", "answer_nll_informed", "mc2", "mc2_informed")  # in tables; the others are in the cells
NOTE = (
    "Every cell is the trained model minus the pretrained one on the same items, with a 95 % interval of a paired "
    "bootstrap over the questions: it covers the choice of questions, not that of seeds or of training runs."
)


@dataclass(frozen=True)
class Cell:
    """What training on a domain did to one that was measured.

    Attributes:
        method: How it was trained.
        trained_on: The domain of the seeds.
        measured_on: The domain of the items.
        items: How many items.
        pretrained: Means of the pretrained model by measure; None where no item has a finite figure.
        trained: Those of the trained one.
        contrasts: The differences, trained minus pretrained.
    """

    method: str
    trained_on: str
    measured_on: str
    items: int
    pretrained: dict[str, float | None]
    trained: dict[str, float | None]
    contrasts: list[Contrast]


def transfer(
    runs: Sequence[tuple[str, str, Run]], evaluation: str, resamples: int = 10_000, seed: int = 0
) -> list[Cell]:
    """Give what each method did to each domain, in the order of the runs.

    Args:
        runs: The domain of a run's seeds, its method, and the run; those of one domain and method are pooled.
        evaluation: The evaluation whose items have the domains as categories.
        resamples: Resamples of the bootstrap.
        seed: Of the resamples.
    """
    domains = list(dict.fromkeys(domain for domain, _, _ in runs))
    cells = []
    for method in dict.fromkeys(method for _, method, run in runs if run.kind != PRETRAINED):
        for trained_on in domains:
            of_domain = [(of, run) for domain, of, run in runs if domain == trained_on]
            after = [line for of, run in of_domain if of == method for line in run.last().get(evaluation, [])]
            before = [line for _, run in of_domain for line in run.at(0).get(evaluation, []) if not line.demonstrated]
            for measured_on in domains:
                cell = _cell(method, trained_on, measured_on, before, after, resamples, seed)
                cells += [cell] if cell.contrasts else []
    return cells


def matrices(cells: Sequence[Cell]) -> list[Section]:
    """Give a table for each method and measure: a row for each domain that was trained on, a column for each other."""
    domains = list(dict.fromkeys(cell.trained_on for cell in cells))
    sections = []
    for method in dict.fromkeys(cell.method for cell in cells):
        own = {(cell.trained_on, cell.measured_on): cell for cell in cells if cell.method == method}
        tables = []
        for measure in SHOWN:
            if any(measure in cell.trained for cell in own.values()):
                rows = [
                    (trained_on, *(_shown(own.get((trained_on, measured_on)), measure) for measured_on in domains))
                    for trained_on in domains
                ]
                head = (f"{measure_label(measure)}, trained on", *(f"measured on {name}" for name in domains))
                tables.append(Table(head, rows))
        sections.append(Section(f"{method} minus pretrained", tables, [NOTE]))
    return sections


def _cell(
    method: str,
    trained_on: str,
    measured_on: str,
    before: Sequence[Line],
    after: Sequence[Line],
    resamples: int,
    seed: int,
) -> Cell:
    of_domain = [line for line in after if line.category == measured_on]
    units = {
        PRETRAINED: units_of([line for line in before if line.category == measured_on]),
        method: units_of(of_domain),
    }
    return Cell(
        method,
        trained_on,
        measured_on,
        items=len({(line.question, line.occurrence) for line in of_domain}),
        pretrained={measure: weighted_mean(figures.values()) for measure, figures in units[PRETRAINED].items()},
        trained={measure: weighted_mean(figures.values()) for measure, figures in units[method].items()},
        contrasts=[
            contrast_of(measure, method, PRETRAINED, units, resamples, seed)
            for measure in MEASURES
            # one temperature was fitted over all domains together
            if measure != SCALED and measure in units[method] and measure in units[PRETRAINED]
        ],
    )


def _shown(cell: Cell | None, measure: str) -> str:
    contrast = next((one for one in cell.contrasts if one.measure == measure), None) if cell else None
    if contrast is None or contrast.difference is None:
        return "-"
    return f"{contrast.difference} {contrast.conclusion}"
