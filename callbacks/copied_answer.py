"""The filter for answers that only repeat their question."""

from lightning.pytorch import Callback

from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample


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
