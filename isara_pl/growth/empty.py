"""The built-in filter of candidates that are no pair."""

from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample


class Empty:
    """Rejects candidates without a question or without an answer, such as those of a model that ends at once."""

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the characters of the shorter of the two; the figure is their number."""
        characters = min(len(candidate.question.strip()), len(candidate.answer.strip()))
        return Verdict(characters, None if characters else "no question, or no answer")
