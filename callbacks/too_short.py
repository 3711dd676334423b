"""The filter for short questions and answers."""

from lightning.pytorch import Callback

from isara_pl.errors import InputError
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import count_words


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
