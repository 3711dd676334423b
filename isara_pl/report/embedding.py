"""Sentence encoders for reports: one that embeds nothing twice, one that no network is asked for; and the map."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from sklearn.decomposition import PCA  # type: ignore[import-untyped]  # scikit-learn ships no types

from isara_pl.errors import InputError
from isara_pl.growth.retrieval import Encoder, SentenceEncoder
from isara_pl.models.sources import is_local
from isara_pl.results.run import Run

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
