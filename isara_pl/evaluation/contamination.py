"""Whether training data touch evaluation items."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isara_pl.errors import InputError
from isara_pl.evaluation.text_overlap import ngrams
from isara_pl.growth.retrieval import Encoder
from isara_pl.growth.samples import Sample
from isara_pl.growth.words import RougeLIndex, wording

Kind = Literal["ngram", "rouge", "embedding"]


@dataclass(frozen=True)
class Contact:
    """A sample that touches an evaluation item.

    Attributes:
        sample_id: The sample.
        item_id: The item.
        kind: `ngram`: a text of the one and a text of the other share a run of tokens; `rouge` or
            `embedding`: their questions are alike.
        figure: How many distinct runs they share, the ROUGE-L F1, or the cosine.
    """

    sample_id: str
    item_id: str
    kind: Kind
    figure: float


class ContaminationIndex:
    """Evaluation items, to look up which of them a sample touches.

    N-grams and ROUGE-L see the tokens of `isara_pl.growth.words.tokens`: in a script without spaces a run of n
    tokens is one of n characters.

    Args:
        items: The evaluation items. Runs are looked for in the question, the answer and all correct and
            incorrect answers, in each by itself.
        encoder: What embeds the questions; None looks for no contact by embedding.
        ngram: Shared tokens in a row that are a contact. A text with fewer tokens has no such run.
        rouge: Highest ROUGE-L F1 of two questions that is no contact; 1 looks for none.
        cosine: Highest cosine of two questions' embeddings that is no contact; 1 looks for none.

    Raises:
        InputError: If ngram is below 1, or rouge or cosine is outside 0 to 1.
    """

    def __init__(
        self,
        items: Sequence[Sample],
        encoder: Encoder | None,
        ngram: int = 8,
        rouge: float = 0.7,
        cosine: float = 0.95,
    ) -> None:
        if ngram < 1:
            raise InputError(f"ContaminationIndex: ngram is {ngram}; allowed: at least 1")
        for option, value in (("rouge", rouge), ("cosine", cosine)):
            if not 0 <= value <= 1:
                raise InputError(f"ContaminationIndex: {option} is {value}; allowed: 0 to 1")
        self.ngram = ngram
        self.rouge = rouge
        self.cosine = cosine
        self._encoder = encoder
        self._item_ids = [item.id for item in items]
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for place, item in enumerate(items):
            texts = (item.question, item.answer, *item.correct_answers, *item.incorrect_answers)
            for run in self._runs(texts):
                self._places[run].append(place)
        questions = [item.question for item in items]
        self._rouge_index = RougeLIndex()
        self._rouge_index.add(questions)
        self._embeddings = encoder.encode(questions) if encoder and items else np.zeros((0, 0), dtype=np.float32)

    def contacts(self, samples: Sequence[Sample]) -> list[Contact]:
        """Give every contact between a sample and an item.

        Runs are looked for in a sample's question and in its answer, in each by itself. The questions are embedded in
        one go: give many samples at once.

        Returns:
            A pair at most once, with the first kind that holds of `ngram`, `rouge` and `embedding`; in the
            order of the samples, then of the items.
        """
        if not samples or not self._item_ids:
            return []
        every: list[Contact] = []
        embeddings = self._encoder.encode([sample.question for sample in samples]) if self._encoder else None
        for row, sample in enumerate(samples):
            found: dict[int, tuple[Kind, float]] = {}  # the kinds in reverse, so that the first one stays
            if embeddings is not None:
                # rounding may lift the cosine of equal texts above 1
                cosines = np.minimum(self._embeddings @ embeddings[row], 1)
                found |= {int(place): ("embedding", float(cosines[place])) for place in _above(cosines, self.cosine)}
            alike = self._rouge_index.scores(sample.question)
            found |= {int(place): ("rouge", float(alike[place])) for place in _above(alike, self.rouge)}
            runs = self._runs((sample.question, sample.answer))
            shared = Counter(place for run in runs for place in self._places.get(run, ()))
            found |= {place: ("ngram", float(count)) for place, count in shared.items()}
            every += [Contact(sample.id, self._item_ids[place], *found[place]) for place in sorted(found)]
        return every

    def _runs(self, texts: Sequence[str]) -> set[str]:
        return {run for text in texts for run in ngrams(text, self.ngram)}


def overlapping(seeds: Sequence[Sample], items: Sequence[Sample]) -> list[tuple[str, str]]:
    """Give the ids of the seeds that are in the evaluation set, each with the id of an item that asks the same.

    In the order of the seeds, then of the items. Case, punctuation and spacing make no difference
    (`isara_pl.growth.words.wording`).
    """
    same: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for item in items:
        same[wording(item.question)].append(item.id)
    return [(seed.id, item_id) for seed in seeds for item_id in same.get(wording(seed.question), ())]


def _above(figures: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.intp]:
    return np.flatnonzero(figures > threshold)


def refuse_overlap(seeds: Sequence[Sample], items: Sequence[Sample], option: str, trained_on: str = "seeds") -> None:
    """Raise an InputError naming the items that ask what a seed asks; the seeds may be other questions trained on.

    `option` says in its text where the items come from, `trained_on` what the seeds are.
    """
    pairs = overlapping(seeds, items)
    if not pairs:
        return
    questions = {item.id: item.question for item in items}
    shown = "; ".join(f"{seed} = {item} ({questions[item][:60]!r})" for seed, item in pairs[:5])
    more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
    raise InputError(
        f"{option}: {len(pairs)} of its items are {trained_on} as well: {shown}{more}. "
        "Remove them from one of the two files, or set data.allow_overlap true"
    )
