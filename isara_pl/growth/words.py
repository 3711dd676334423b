"""The words of texts in any script, and how alike texts are by them (ROUGE-L).

In scripts that put no space between words, each character is one.
"""

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import regex
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

_UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}"
    r"\p{Tai_Tham}\p{Javanese}\p{Balinese}]"
)
# in Latin script what rouge_score takes, the letters a to z and digits; it drops every other script
_TOKEN = regex.compile(
    rf"[a-z0-9]+|{_UNSPACED}\p{{M}}*"
    rf"|[[\p{{L}}--\p{{Common}}]\p{{Nd}}--\p{{Latin}}--{_UNSPACED}--[0-9]]"
    rf"[\p{{L}}\p{{M}}\p{{Nd}}--\p{{Latin}}--{_UNSPACED}--[0-9]]*",
    regex.V1,
)
_WORD = regex.compile(
    rf"{_UNSPACED}\p{{M}}*|[\p{{L}}\p{{N}}_--{_UNSPACED}][\p{{L}}\p{{M}}\p{{N}}_--{_UNSPACED}]*", regex.V1
)
_UNSPACED_CHARACTER = regex.compile(_UNSPACED, regex.V1)
_UNKNOWN = "\0"  # a token that no text of the index has
FIRST_LOOK = 32  # texts whose score says how many of the others can be left out


def tokens(text: str) -> list[str]:
    """Give the tokens that n-grams and ROUGE count, in lower case.

    Of Latin script they are exactly those of rouge_score without stemmer: runs of the letters a to z and
    digits. Of other scripts they are runs of letters, marks and digits, or single characters where the
    script has no spaces.
    """
    return [
        found if found.isascii() else unicodedata.normalize("NFKC", found) for found in _TOKEN.findall(text.lower())
    ]


def count_words(text: str) -> int:
    """Count the words of a text, split at white space; where a script has no spaces, its characters count."""
    return sum(len(_WORD.findall(part)) if _UNSPACED_CHARACTER.search(part) else 1 for part in text.split())


def wording(text: str) -> tuple[str, ...]:
    """Give the words of a text of any script, the same where only case, punctuation or spacing differ.

    They are its runs of letters, marks and digits after Unicode's NFKC and case folding, or single characters where the
    script has no spaces; where it has none, the whole text, stripped.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.findall(r"\w+", folded) if folded.isascii() else _WORD.findall(folded)  # the same, faster
    return tuple(words) or (folded.strip(),)


def repeated_share(text: str, run: int) -> float:
    """Give the share of a text's letters that stand in a run of so many words which stood there before, in [0, 1].

    The first time that a run stands there does not count; words are those of `wording`.
    """
    words = wording(text)
    seen: set[tuple[str, ...]] = set()
    again: set[int] = set()
    for start in range(len(words) - run + 1):
        here = words[start : start + run]
        if here in seen:
            again.update(range(start, start + run))
        seen.add(here)
    return sum(len(words[place]) for place in again) / max(sum(map(len, words)), 1)


class RougeLIndex:
    """ROUGE-L F1 of a text against all texts added so far; in Latin script equal to rouge_score's to the last bit.

    `tokens` splits the texts, as rouge_score without stemmer does, which drops scripts other
    than Latin. Every distinct token then becomes one character of a string, and rapidfuzz finds the length of the
    longest common subsequence of such strings.

    For the highest score most texts need not be compared at all. A common subsequence is no longer than
    the number of tokens that two texts share, each counted as often as both have it; lists of which
    texts hold a token give that number for all texts at once, and with the lengths a bound of the F1.
    """

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._coded: list[str] = []
        self._lengths = array("q")
        # (token, n) -> places of the texts that hold the token at least n times
        self._holding: dict[tuple[str, int], array[int]] = {}

    def __len__(self) -> int:
        return len(self._coded)

    def add(self, texts: Sequence[str]) -> None:
        """Add texts to compare with."""
        for place, text in enumerate(texts, start=len(self._coded)):
            coded = "".join(self._codes.setdefault(token, chr(_code_point(len(self._codes)))) for token in tokens(text))
            for occurrence in _occurrences(coded):
                self._holding.setdefault(occurrence, array("q")).append(place)
            self._coded.append(coded)
            self._lengths.append(len(coded))

    def scores(self, text: str, places: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Give the ROUGE-L F1 of a text against texts of the index.

        `places` are their numbers in the order of adding; None takes all of them. They are in [0, 1].
        """
        return self._scores(self._encode(text), range(len(self._coded)) if places is None else places)

    def highest(self, text: str) -> float:
        """Give the highest ROUGE-L F1 of a text against all texts of the index; 0 where it is empty."""
        if not self._coded:
            return 0.0
        query = self._encode(text)
        bounds = self._bounds(query)
        count = min(FIRST_LOOK, len(bounds))
        first = np.argpartition(bounds, -count)[-count:]
        reached = self._scores(query, first.tolist()).max()
        if reached == 0:  # a text that shared a token would be among the first
            return 0.0
        # bounds have float32's rounding: one a little lower must not hide a text
        possible = np.flatnonzero(bounds >= reached * (1 - 1e-5))
        return float(self._scores(query, possible.tolist()).max())

    def _bounds(self, query: str) -> NDArray[np.float32]:
        """Give a number for every text that its F1 cannot exceed, but by rounding."""
        shared = np.zeros(len(self._coded), dtype=np.float32)
        for occurrence in _occurrences(query):
            shared[np.frombuffer(self._holding.get(occurrence, b""), dtype=np.int64)] += 1
        lengths = np.maximum(np.frombuffer(self._lengths, dtype=np.int64) + len(query), 1).astype(np.float32)
        return 2 * shared / lengths  # F1 = 2 · common / (length + length)

    def _scores(self, query: str, places: Sequence[int]) -> NDArray[np.float64]:
        if not places:
            return np.zeros(0)
        texts = [self._coded[place] for place in places]
        common = cdist([query], texts, scorer=LCSseq.similarity, dtype=np.int32)[0].astype(np.float64)
        lengths = np.array([len(text) for text in texts], dtype=np.float64)
        # the very operations of rouge_score, in its order, so that the result is equal to the last bit
        precision = common / max(len(query), 1)
        recall = common / np.maximum(lengths, 1)
        total = precision + recall
        scores: NDArray[np.float64] = np.zeros_like(total)
        np.divide(2 * precision * recall, total, out=scores, where=total > 0)
        return scores

    def _encode(self, text: str) -> str:
        return "".join(self._codes.get(token, _UNKNOWN) for token in tokens(text))


def _occurrences(coded: str) -> Iterator[tuple[str, int]]:
    """Yield every token of a coded text with its number among the equal ones, from 1."""
    seen: Counter[str] = Counter()
    for token in coded:
        seen[token] += 1
        yield token, seen[token]


def _code_point(number: int) -> int:
    # after _UNKNOWN; the surrogate range is left out: such strings could not be printed when debugging
    return number + 1 if number + 1 < 0xD800 else number + 0x801
