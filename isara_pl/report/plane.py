"""Embeddings as points on a plane, for a map."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA  # type: ignore[import-untyped]  # scikit-learn ships no types

FEWEST = 3  # points that a plane can tell anything of
DECIMALS = 4  # finer than a screen shows; what rounding in the encoder changes is not seen


def on_plane(embeddings: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], float] | None:
    """Project embeddings on the two directions in which they differ most (PCA).

    Args:
        embeddings: Shape (n, dimension).

    Returns:
        The points, shape (n, 2), and the share of the variance that they keep; None where there are fewer than
        three embeddings, or all are equal. The direction of an axis is that of its largest coefficient.
    """
    rows = embeddings.astype(np.float64)
    if len(rows) < FEWEST or rows.shape[1] < 2 or np.allclose(rows, rows[0]):
        return None
    projection = PCA(n_components=2, svd_solver="covariance_eigh").fit(rows)  # no random numbers in it
    points = projection.transform(rows)
    largest = np.abs(projection.components_).argmax(axis=1)
    points *= np.sign(projection.components_[[0, 1], largest])
    return np.round(points, DECIMALS) + 0.0, float(projection.explained_variance_ratio_.sum())  # + 0.0: no -0.0
