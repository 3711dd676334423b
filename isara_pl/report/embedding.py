"""Sentence encoders for reports: one that embeds nothing twice, and one that no network is asked for."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from huggingface_hub import snapshot_download
from numpy.typing import NDArray

from isara_pl.errors import InputError
from isara_pl.growth.retrieval import Encoder, SentenceEncoder
from isara_pl.models.loading import is_local
from isara_pl.results.run import Run


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
