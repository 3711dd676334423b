"""The filter for questions that the pool already holds."""

from typing import Literal

from lightning.pytorch import Callback

from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import RougeLIndex, wording

KNOWN = "question is in the pool already"


class NearDuplicate(Callback):
    """Rejects a candidate whose question is too like one it is compared with (arXiv 2401.06785).

    A question that the pool holds already, but for case, punctuation and spacing, is never new.

    Args:
        threshold: Highest ROUGE-L F1 that is still new; in Latin script exactly rouge_score's rougeL without stemmer.
            In other scripts words count likewise, or characters where the script has no spaces.
        against: `pool` compares with every question of the pool, those accepted before in the same
            outer epoch included; `context` only with the questions it was written from and, for
            equality, with the pool (the released code).

    Raises:
        InputError: If the threshold is outside 0 to 1.
    """

    def __init__(self, threshold: float = 0.7, against: Literal["pool", "context"] = "pool") -> None:
        if not 0 <= threshold <= 1:
            raise InputError(f"NearDuplicate: threshold is {threshold}; allowed: 0 to 1")
        self.threshold = threshold
        self.against = against
        self._pool: SamplePool | None = None
        self._index = RougeLIndex()
        self._places: dict[str, int] = {}  # by id
        self._wordings: set[tuple[str, ...]] = set()

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the highest ROUGE-L; the figure is that ROUGE-L."""
        self._follow(pool)
        known = wording(candidate.question) in self._wordings
        if self.against == "pool":
            highest = self._index.highest(candidate.question)
        elif known:
            return Verdict(1.0, KNOWN)
        else:
            places = [self._places[name] for name in candidate.question_demonstrations]
            highest = float(self._index.scores(candidate.question, places).max(initial=0.0))
        if highest > self.threshold:
            return Verdict(highest, f"ROUGE-L above {self.threshold} with a known question")
        return Verdict(1.0, KNOWN) if known else Verdict(highest)

    def _follow(self, pool: SamplePool) -> None:
        """Add to the index what entered the pool since the last call; a pool is only ever added to."""
        if pool is not self._pool:
            self._pool, self._index, self._places, self._wordings = pool, RougeLIndex(), {}, set()
        new = pool.samples[len(self._index) :]
        self._places.update((sample.id, len(self._index) + place) for place, sample in enumerate(new))
        self._wordings.update(wording(sample.question) for sample in new)
        self._index.add([sample.question for sample in new])
