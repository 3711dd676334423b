"""Which samples stand in a context: the nearest to a question, or random ones."""

import random
from collections.abc import Sequence
from typing import Literal

from isara_pl.growth.retrieval import Encoder, PoolIndex
from isara_pl.growth.samples import Sample
from isara_pl.run.randomness import derive_seed

Context = Literal["knn", "random"]


class Demonstrations:
    """Gives every question its demonstrations, as in-context learning does it.

    `knn` takes the nearest, the nearest last; `random` draws for each question anew. There are fewer than `count` where
    there are fewer samples.
    """

    def __init__(self, samples: Sequence[Sample], encoder: Encoder, count: int, context: Context, seed: int) -> None:
        self.samples = samples
        self.count = count
        self.seed = seed
        self._index = PoolIndex(encoder) if context == "knn" and count else None
        if self._index is not None:
            self._index.add(samples)

    def of(self, questions: Sequence[Sample]) -> list[list[Sample]]:
        """Give the demonstrations of each question, in the order of the prompt.

        A draw depends on the question's text and on nothing else.
        """
        if not self.count:
            return [[] for _ in questions]
        if self._index is not None:
            texts = [sample.question for sample in questions]
            return [nearest[::-1] for nearest in self._index.nearest(texts, self.count)]
        draws = [random.Random(derive_seed(self.seed, "demonstrations", sample.question)) for sample in questions]
        return [draw_samples(self.samples, self.count, None, draw) for draw in draws]


def draw_samples(samples: Sequence[Sample], count: int, quota: int | None, draw: random.Random) -> list[Sample]:
    """Draw samples at random, without putting any back.

    At most `quota` are from each outer epoch, the rest seeds; None sets no limit.
    """
    if quota is None:
        return draw.sample(samples, min(count, len(samples)))
    sources: dict[int, list[Sample]] = {}
    for sample in samples:
        sources.setdefault(sample.outer_epoch, []).append(sample)
    chosen: list[Sample] = []
    for outer_epoch in sorted(sources, reverse=True):
        wanted = count - len(chosen) if outer_epoch == 0 else min(quota, count - len(chosen))
        chosen.extend(draw.sample(sources[outer_epoch], min(wanted, len(sources[outer_epoch]))))
    return draw.sample(chosen, len(chosen))
