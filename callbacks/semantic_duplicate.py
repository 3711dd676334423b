"""Rejects questions that mean what a question of the pool means."""

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from isara_pl.callbacks.evaluation import data_of
from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.retrieval import Encoder, PoolIndex
from isara_pl.growth.samples import Sample


class SemanticDuplicate(Callback):
    """Rejects a candidate whose question means nearly what one of the pool means, in whatever words.

    Compared are embeddings by data.encoder, with those accepted before in the same outer epoch, too. A candidate is
    embedded by itself, so that its figure depends on no batch.

    Args:
        threshold: Highest cosine that is still new. Of TruthfulQA's questions, 0.5 % have another one above 0.9.

    Raises:
        InputError: If the threshold is outside -1 to 1.
    """

    def __init__(self, threshold: float = 0.9) -> None:
        if not -1 <= threshold <= 1:
            raise InputError(f"SemanticDuplicate: threshold is {threshold}; allowed: -1 to 1")
        self.threshold = threshold
        self.encoder: Encoder | None = None
        self._pool: SamplePool | None = None
        self._outer_epoch, self._before = 0, 0  # which one is judged, and the samples before it
        self._accepted: list[NDArray[np.float32]] = []  # in it
        self._last: tuple[str, NDArray[np.float32]] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the data module's encoder."""
        self.encoder, self._pool, self._last = data_of(trainer, self).encoder, None, None

    def embeds(self, fits: bool) -> bool:
        """Whether there will be candidates."""
        return fits

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the highest cosine with a question of the pool, which is the figure."""
        if self.encoder is None:
            raise RuntimeError("SemanticDuplicate has no encoder: a Trainer gives it that of IsaraDataModule")
        if pool is not self._pool:
            # the run's own index may lack samples, those that leave no room in a context
            self._pool, self._index, self._outer_epoch = pool, PoolIndex(self.encoder), 0
        if candidate.outer_epoch != self._outer_epoch:
            before = pool.up_to(candidate.outer_epoch - 1)
            self._index.add(before)
            self._outer_epoch, self._before, self._accepted = candidate.outer_epoch, len(before), []
        new = pool.samples[self._before + len(self._accepted) :]
        self._accepted += [self._embedding(self.encoder, sample.question) for sample in new]
        own = self._embedding(self.encoder, candidate.question)
        cosines = [float(self._index.highest(own[None])[0]), *(float(other @ own) for other in self._accepted)]
        highest = min(max(cosines), 1.0)
        too_like = highest > self.threshold
        return Verdict(highest, f"cosine above {self.threshold} with a known question" if too_like else None)

    def _embedding(self, encoder: Encoder, question: str) -> NDArray[np.float32]:
        """Embed a question; that of the candidate before, which may have been accepted since, is known."""
        if self._last is None or self._last[0] != question:
            self._last = question, encoder.encode([question])[0]
        return self._last[1]
