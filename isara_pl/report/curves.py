"""What charts show: figures by outer epoch, what became of the candidates, how varied they stay, and a map of them."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from sklearn.decomposition import PCA  # type: ignore[import-untyped]  # scikit-learn ships no types

from isara_pl.errors import InputError
from isara_pl.evaluation.blind import BLIND, EMPTY
from isara_pl.evaluation.diversity import FIGURES, diversity, nearest_cosine
from isara_pl.growth.pool import Rejected
from isara_pl.growth.retrieval import Encoder, SentenceEncoder
from isara_pl.growth.samples import Sample
from isara_pl.models.sources import is_local
from isara_pl.report.contents import Curve, DiversityRow, GrownOuterEpoch
from isara_pl.report.suspicious import Traits
from isara_pl.results.items import MEASURES
from isara_pl.results.metrics import LAST
from isara_pl.results.run import Run

Rows = Mapping[int, Mapping[str, float]]

# what a reader asks for first; the other measures follow in their own order, then all other columns
TELLING = ("answer_nll", "mc2", "harm_rate", "harm_preference", "reward", "cost", "win_rate")
NOT_FINITE, CLEAN = "not_finite", "_clean"
WITHOUT_QUESTION = (f"_{BLIND}", f"_{EMPTY}")  # in metrics.csv alone: what is left beyond them has curves


def curves(rows: Rows, baselines: Mapping[str, Sequence[Rows]], shown_elsewhere: Sequence[str]) -> list[Curve]:
    """Give a curve for every column of metrics.csv that is a figure of a model, the most telling first.

    Of baselines, by their names, the mean over the runs of a name counts. What is shown elsewhere is left out, and so
    are the question-blind controls.
    """
    columns = list(dict.fromkeys(name for _, row in sorted(rows.items()) for name in row))
    left_out = {"outer_epoch", *LAST, *shown_elsewhere}
    found = []
    for column in sorted((name for name in columns if name not in left_out), key=_order):
        outer_epochs = [number for number in sorted(rows) if column in rows[number]]
        values = [_finite(rows[number][column]) for number in outer_epochs]
        if NOT_FINITE in column and not any(values):
            continue  # a count of what did not happen
        if column.removesuffix(CLEAN).endswith(WITHOUT_QUESTION):
            continue
        label, higher_is_better = described(column)
        ends = {name: [_last(of_run, column) for of_run in runs] for name, runs in baselines.items()}
        lines = {name: sum(known) / len(known) for name, of_runs in ends.items() if (known := _known(of_runs))}
        found.append(Curve(column, label, higher_is_better, outer_epochs, values, lines))
    return found


def described(column: str) -> tuple[str, bool | None]:
    """Say how readers call a column of metrics.csv, and whether higher is better; None where neither is.

    A column is a measure, perhaps with the name of an evaluation before it and `_clean` behind it.
    """
    name = column.removesuffix(CLEAN)
    ending = " on clean items" if name != column else ""
    for measure, known in MEASURES.items():
        if name == measure:
            return known.label + ending, known.higher_is_better
    for measure, known in MEASURES.items():
        if name.endswith(f"_{measure}"):
            return f"{known.label} ({name.removesuffix(f'_{measure}')}){ending}", known.higher_is_better
    for measure, known in MEASURES.items():
        if name.startswith(f"{measure}_") and NOT_FINITE not in name:
            return f"{known.label} in {name.removeprefix(f'{measure}_')}{ending}", known.higher_is_better
    return name.replace("_", " ") + ending, None


def _order(column: str) -> tuple[int, int]:
    names = (*TELLING, *MEASURES)
    return (0, names.index(column)) if column in names else (1, 0)


def _last(rows: Rows, column: str) -> float | None:
    """Give the figure of the last model: the trained one, where there is one."""
    having = [number for number in rows if column in rows[number]]
    return _finite(rows[max(having)][column]) if having else None


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def grown_outer_epochs(
    samples: Sequence[Sample], rejected: Sequence[Rejected], filters: Any, trained: Callable[[int], bool]
) -> list[GrownOuterEpoch]:
    """Count candidates, accepted ones and what each filter took, by outer epoch.

    Args:
        samples: The pool.
        rejected: Rejected candidates.
        filters: In their order, as `isara_pl.run.conditions.described` gives them; None is not known.
        trained: Whether an outer epoch was trained on.
    """
    names = _in_order(samples, rejected, filters)
    accepted = Counter(sample.outer_epoch for sample in samples if sample.outer_epoch > 0)
    taken = Counter((entry.candidate.outer_epoch, entry.filter) for entry in rejected)
    found = []
    for number in sorted({*accepted, *(outer_epoch for outer_epoch, _ in taken)}):
        by_filter = {name: taken[number, name] for name in names}
        candidates = accepted[number] + sum(by_filter.values())
        found.append(GrownOuterEpoch(number, candidates, accepted[number], by_filter, trained(number)))
    return found


def _in_order(samples: Sequence[Sample], rejected: Sequence[Rejected], filters: Any) -> list[str]:
    """Give the filters in the order that they were asked in; one that is found in the files alone comes last."""
    stated = [str(name).partition("(")[0] for name in filters] if isinstance(filters, list) else []
    passed = [name for sample in samples for name in sample.scores]
    return list(dict.fromkeys([*stated, *passed, *(entry.filter for entry in rejected)]))


Embeddings = NDArray[np.float32]
# of more samples the nearest neighbour is looked up for so many only: all pairs of 100,000 would take minutes
MOST_LOOKED_UP = 2000
BLOCK = 200  # rows at once: 80 MB for 100,000 samples


def drift(
    samples: Sequence[Sample],
    traits: Sequence[Traits],
    places: Mapping[int, Sequence[int]],
    embeddings: Embeddings | None,
    seed_cosines: Embeddings | None,
) -> list[DiversityRow]:
    """Give the diversity of each outer epoch, by the names of `isara_pl.evaluation.diversity.FIGURES`.

    `nearest_pool_cosine` is the mean over all its samples, or over 2,000 of them at even distances where there are
    more.

    Args:
        samples: The pool.
        traits: Traits of each.
        places: Places of the samples of each outer epoch; the seeds are outer epoch 0.
        embeddings: Embeddings of the questions, rows of length 1; None leaves out what is computed from them.
        seed_cosines: Those of `nearest_seed_cosines`.
    """
    found = []
    for number, own in places.items():
        questions, answers = ([getattr(samples[p], part) for p in own] for part in ("question", "answer"))
        rows = None if embeddings is None else embeddings[own]
        of_seeds = None if seed_cosines is None else seed_cosines[own]
        copies = [traits[place].copy_of is not None for place in own]
        of_others = None if rows is None else _nearest_others(rows)
        figures = diversity(questions, answers, rows, of_seeds, copies, of_others)
        found.append(DiversityRow(number, len(own), {name: figures.get(name) for name in FIGURES}))
    return found


def nearest_seed_cosines(embeddings: Embeddings, places: Mapping[int, Sequence[int]]) -> Embeddings:
    """Give the cosine of each question with the nearest seed's; of a seed, with the nearest other seed's.

    Args:
        embeddings: Embeddings of the questions, rows of length 1.
        places: Places of the samples of each outer epoch; the seeds are outer epoch 0.
    """
    seeds = embeddings[places[0]]
    cosines = nearest_cosine(embeddings, seeds)
    cosines[places[0]] = nearest_cosine(seeds)
    return cosines


def nearest_seeds(embeddings: Embeddings, places: Mapping[int, Sequence[int]]) -> list[int]:
    """Give the place of the seed that is nearest to each question; of a seed, itself."""
    nearest = (embeddings @ embeddings[places[0]].T).argmax(axis=1)
    return [places[0][number] for number in nearest]


def _nearest_others(embeddings: Embeddings) -> Embeddings:
    """Give the cosine with the nearest other row, of all rows or of some at even distances."""
    count = len(embeddings)
    if count < 2:
        return np.zeros(count, dtype=np.float32)
    looked_up = np.unique(np.linspace(0, count - 1, min(count, MOST_LOOKED_UP)).astype(int))
    nearest = []
    for start in range(0, len(looked_up), BLOCK):
        places = looked_up[start : start + BLOCK]
        cosines = embeddings[places] @ embeddings.T
        cosines[np.arange(len(places)), places] = -1  # itself
        nearest.append(cosines.max(axis=1))
    return np.concatenate(nearest)


FEWEST = 3  # points that a plane can tell anything of
DECIMALS = 4  # finer than a screen shows; what rounding in the encoder changes is not seen


class EmbeddedOnce:
    """An encoder that remembers what it embedded.

    It does so list by list: an embedding's last bits depend on the texts beside it.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._known: dict[tuple[str, ...], NDArray[np.float32]] = {}

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give one row of length 1 for each text, such as the questions of an outer epoch."""
        key = tuple(texts)
        if key not in self._known:
            self._known[key] = self.encoder.encode(texts)
        return self._known[key]


def encoder_of(run: Run) -> Encoder | None:
    """Give the sentence encoder of a run, loaded; None where the run's files name none.

    Raises:
        InputError: If it is not here, or cannot be loaded.
    """
    name = run.options.get("data.encoder")
    if not isinstance(name, str):
        return None
    encoder = SentenceEncoder(name if is_local(name) else _folder_of(name))
    encoder.encode(["so that it is loaded now"])
    return encoder


def _folder_of(hub_id: str) -> str:
    """Find the downloaded copy of a hub model."""
    # as SentenceTransformer does, where an id has no owner
    names = [hub_id] if "/" in hub_id else [hub_id, f"sentence-transformers/{hub_id}"]
    for name in names:
        with suppress(OSError, ValueError):
            return snapshot_download(name, local_files_only=True)
    raise InputError(f"the sentence encoder {hub_id!r} is not on this machine, and a report downloads nothing")


def on_plane(embeddings: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], float] | None:
    """Project embeddings, shape (n, dimension), on the two directions in which they differ most (PCA).

    Gives the points, shape (n, 2), and the share of the variance that they keep; None where there are fewer than three
    embeddings, or all are equal. The direction of an axis is that of its largest coefficient.
    """
    rows = embeddings.astype(np.float64)
    if len(rows) < FEWEST or rows.shape[1] < 2 or np.allclose(rows, rows[0]):
        return None
    projection = PCA(n_components=2, svd_solver="covariance_eigh").fit(rows)  # no random numbers in it
    points = projection.transform(rows)
    largest = np.abs(projection.components_).argmax(axis=1)
    points *= np.sign(projection.components_[[0, 1], largest])
    return np.round(points, DECIMALS) + 0.0, float(projection.explained_variance_ratio_.sum())  # + 0.0: no -0.0
