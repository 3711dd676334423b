"""The filters that look at one candidate: its length, its end, its words, and those of the pool."""

from typing import Literal

from lightning.pytorch import Callback

from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import RougeLIndex, count_words, wording


class TooShort(Callback):
    """Rejects a candidate whose question or answer has few words (arXiv 2401.06785: under 5).

    Args:
        min_words: Fewest words, split at white space, of a question and of an answer. In a script without spaces
            between words, such as Chinese, Japanese or Thai, each character counts as one.

    Raises:
        InputError: If min_words is below 1.
    """

    def __init__(self, min_words: int = 5) -> None:
        if min_words < 1:
            raise InputError(f"TooShort: min_words is {min_words}; allowed: at least 1")
        self.min_words = min_words

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the shorter of question and answer; the figure is its count of words."""
        question, answer = count_words(candidate.question), count_words(candidate.answer)
        if question < self.min_words:
            return Verdict(question, f"question under {self.min_words} words")
        if answer < self.min_words:
            return Verdict(answer, f"answer under {self.min_words} words")
        return Verdict(min(question, answer))


class Unfinished(Callback):
    """Rejects a candidate whose question or answer reached its `max_new_tokens` before its end."""

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by whether the model ended both; the figure is 1 if not, else 0."""
        if not candidate.question_finished:
            return Verdict(1.0, "question ran out of tokens")
        if candidate.answer_finished:
            return Verdict(0.0)
        return Verdict(1.0, "answer ran out of tokens")


class CopiedAnswer(Callback):
    """Rejects a candidate whose question contains its answer, or the other way round.

    Letter case, punctuation at the ends and runs of white space make no difference.
    """

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by containment; the figure is 1 for a copy, else 0."""
        question, answer = _bare(candidate.question), _bare(candidate.answer)
        if question in answer or answer in question:
            return Verdict(1.0, "answer and question contain one another")
        return Verdict(0.0)


def _bare(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .,;:!?\"'。，、；：！？؟،؛।")


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
