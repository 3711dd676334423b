"""The filters that look at words alone: a candidate's length, its end, its repetitions, and the words of the pool."""

from collections.abc import Callable
from typing import Literal

from lightning.pytorch import Callback
from typing_extensions import Self

from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import RougeLIndex, count_words, repeated_share, wording


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
        self._known = _Known(lambda sample: sample.question)

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the highest ROUGE-L; the figure is that ROUGE-L."""
        known = self._known.of(pool)
        is_known = wording(candidate.question) in known.wordings
        if self.against == "pool":
            highest = known.index.highest(candidate.question)
        elif is_known:
            return Verdict(1.0, KNOWN)
        else:
            places = [known.places[name] for name in candidate.question_demonstrations]
            highest = float(known.index.scores(candidate.question, places).max(initial=0.0))
        if highest > self.threshold:
            return Verdict(highest, f"ROUGE-L above {self.threshold} with a known question")
        return Verdict(1.0, KNOWN) if is_known else Verdict(highest)


class DuplicateAnswer(Callback):
    """Rejects a candidate whose answer is too like one of the pool's, whatever it was asked.

    An answer that the pool holds already, but for case, punctuation and spacing, is always rejected. Short answers may
    be alike and right: of TruthfulQA's own answers, 12 % are so at the default.

    Args:
        threshold: Highest ROUGE-L F1 that is still another answer, as in NearDuplicate.

    Raises:
        InputError: If the threshold is outside 0 to 1.
    """

    def __init__(self, threshold: float = 0.7) -> None:
        if not 0 <= threshold <= 1:
            raise InputError(f"DuplicateAnswer: threshold is {threshold}; allowed: 0 to 1")
        self.threshold = threshold
        self._known = _Known(lambda sample: sample.answer)

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the highest ROUGE-L of the answer with those of the pool; the figure is that ROUGE-L."""
        known = self._known.of(pool)
        if wording(candidate.answer) in known.wordings:
            return Verdict(1.0, "answer is in the pool already")
        highest = known.index.highest(candidate.answer)
        too_like = highest > self.threshold
        return Verdict(highest, f"ROUGE-L above {self.threshold} with a known answer" if too_like else None)


class Repetitive(Callback):
    """Rejects a candidate whose question or answer says the same again and again.

    That is the rule on duplicate n-grams by which Gopher's data were filtered (arXiv 2112.11446, table A1: 5-grams,
    15 %). What stands in a text for the first time does not count here, since candidates are short. Of TruthfulQA's
    own answers none is rejected.

    Args:
        threshold: Largest share of the letters of a text that may stand in a run of words which it has said before.
        run: Words of such a run. In a script without spaces between words each character counts as one.

    Raises:
        InputError: If the threshold is outside 0 to 1, or run is below 1.
    """

    def __init__(self, threshold: float = 0.15, run: int = 5) -> None:
        if not 0 <= threshold <= 1:
            raise InputError(f"Repetitive: threshold is {threshold}; allowed: 0 to 1")
        if run < 1:
            raise InputError(f"Repetitive: run is {run}; allowed: at least 1")
        self.threshold = threshold
        self.run = run

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the larger share of question and answer, which is the figure."""
        shares = {"question": repeated_share(candidate.question, self.run)}
        shares["answer"] = repeated_share(candidate.answer, self.run)
        part = max(shares, key=lambda name: shares[name])
        return Verdict(shares[part], f"{part} repeats itself" if shares[part] > self.threshold else None)


class _Known:
    """The questions or the answers of a pool, by wording and by ROUGE-L; a pool is only ever added to."""

    def __init__(self, text_of: Callable[[Sample], str]) -> None:
        self._text_of = text_of
        self._begin(None)

    def _begin(self, pool: SamplePool | None) -> None:
        self._pool = pool
        self.index = RougeLIndex()
        self.places: dict[str, int] = {}  # by id
        self.wordings: set[tuple[str, ...]] = set()

    def of(self, pool: SamplePool) -> Self:
        """Give what is known of a pool, with what entered it since the last call."""
        if pool is not self._pool:
            self._begin(pool)
        new = pool.samples[len(self.index) :]
        self.places.update((sample.id, len(self.index) + place) for place, sample in enumerate(new))
        self.wordings.update(wording(self._text_of(sample)) for sample in new)
        self.index.add([self._text_of(sample) for sample in new])
        return self
