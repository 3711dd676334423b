"""Exact ROUGE-L of one text against many, fast."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist
from rouge_score.tokenizers import DefaultTokenizer


class RougeLIndex:
    """ROUGE-L F1 of a text against all texts added so far, equal to rouge_score's to the last bit.

    rouge_score's own tokenizer splits the texts (lower case, letters and digits, no stemmer). Every
    distinct token then becomes one character of a string, and rapidfuzz finds the length of the
    longest common subsequence of such strings.
    """

    def __init__(self) -> None:
        self._tokenizer = DefaultTokenizer(use_stemmer=False)
        self._codes: dict[str, str] = {}
        self._coded: list[str] = []
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._coded)

    def add(self, texts: Sequence[str]) -> None:
        """Add texts to compare with."""
        for text in texts:
            coded = self._encode(text)
            self._coded.append(coded)
            self._lengths.append(len(coded))

    def scores(self, text: str) -> NDArray[np.float64]:
        """Give the ROUGE-L F1 of a text against every text of the index.

        Args:
            text: The text to compare.

        Returns:
            One score in [0, 1] for each text, in the order of their adding.
        """
        query = self._encode(text)
        if not self._coded:
            return np.zeros(0)
        common = cdist([query], self._coded, scorer=LCSseq.similarity, dtype=np.int32)[0].astype(np.float64)
        lengths = np.asarray(self._lengths, dtype=np.float64)
        # the very operations of rouge_score, in its order, so that the result is equal to the last bit
        precision = common / max(len(query), 1)
        recall = common / np.maximum(lengths, 1)
        total = precision + recall
        scores: NDArray[np.float64] = np.zeros_like(total)
        np.divide(2 * precision * recall, total, out=scores, where=total > 0)
        return scores

    def _encode(self, text: str) -> str:
        # the surrogate range is left out: such strings could not be printed when debugging
        return "".join(
            self._codes.setdefault(token, chr(_code_point(len(self._codes))))
            for token in self._tokenizer.tokenize(text)
        )


def _code_point(number: int) -> int:
    return number if number < 0xD800 else number + 0x800
