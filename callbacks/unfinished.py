"""The filter for questions and answers that ran out of tokens."""

from lightning.pytorch import Callback

from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample


class Unfinished(Callback):
    """Rejects a candidate whose question or answer reached its `max_new_tokens` before its end."""

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by whether the model ended both; the figure is 1 if not, else 0."""
        if not candidate.question_finished:
            return Verdict(1.0, "question ran out of tokens")
        if candidate.answer_finished:
            return Verdict(0.0)
        return Verdict(1.0, "answer ran out of tokens")
