"""What an answer claims that what it was written from does not: found by its words alone.

Numbers, names and denials are all that is looked at. Nothing here knows what is true: a claim that is found may be
right, and an answer without any may be wrong.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from isara_pl.evaluation.refusals import is_refusal
from isara_pl.growth.samples import Sample
from isara_pl.report.contents import listed, quoted

NEAR = 0.75  # cosine from which on two questions may be expected to have one answer
# share of capitals within sentences from which on a language writes more than names with them, as German does
CAPITALS = 0.15
MOST_NAMED = 4
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE_START = re.compile(r"(?:^|[.!?:;\"“„(\n])\s*$")
_DENIAL = re.compile(
    r"\b(?:no|non|not|never|none|nothing|nobody|neither|nor|cannot|without|nein|nicht|nie|niemals|nichts|niemand|"
    r"kein(?:e[mnrs]?)?|ohne|weder)\b|n['’]t\b",
    re.IGNORECASE,
)
_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class Claims:
    """What is suspicious of each accepted sample, by its place: the words that follow "it"."""

    contradicting: Mapping[int, str]  # the answer of the nearest seed
    invented: Mapping[int, tuple[int, str]]  # how many numbers and names are from nowhere, too


def claims_of(
    samples: Sequence[Sample], nearest_seeds: Sequence[int] | None, cosines: Sequence[float] | None
) -> Claims:
    """Find what answers claim otherwise than their nearest seeds, or beyond all that they were written from.

    Args:
        samples: The pool.
        nearest_seeds: The place of each question's nearest seed; None is not known.
        cosines: The cosine with it.
    """
    by_id = {sample.id: sample for sample in samples}
    capitals = _capitals_are_common(sample.answer for sample in samples if sample.outer_epoch == 0)
    contradicting: dict[int, str] = {}
    invented: dict[int, tuple[int, str]] = {}
    for place, sample in enumerate(samples):
        if sample.outer_epoch == 0 or is_refusal(sample.answer):  # which claims nothing, and is told elsewhere
            continue
        nearest = samples[nearest_seeds[place]] if nearest_seeds is not None else None
        shown = (*sample.question_demonstrations, *sample.answer_demonstrations)
        sources = [by_id[name] for name in dict.fromkeys(shown) if name in by_id] + ([nearest] if nearest else [])
        told = [sample.question, *(text for source in sources for text in (source.question, source.answer))]
        found = _from_nowhere(sample.answer, told, not capitals)
        if found:
            more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            names = f"{', '.join(map(quoted, found[:MOST_NAMED]))}{more}" if more else listed([*map(quoted, found)])
            invented[place] = (
                len(found),
                f"may have made something up: {names} in its answer, but neither in its question, in its "
                "demonstrations nor in the nearest seed",
            )
        if nearest and cosines is not None and cosines[place] >= NEAR:
            how = _otherwise(sample, nearest)
            if how:
                contradicting[place] = (
                    f"may contradict {nearest.id}, the nearest seed (cosine {cosines[place]:.3f}), "
                    f"{quoted(nearest.question)}, answered {quoted(nearest.answer)}: {how}"
                )
    return Claims(contradicting, invented)


def numbers_in(text: str) -> set[str]:
    """Give the numbers of a text, those up to twelve also where they are English words."""
    digits = {found.replace(",", "").rstrip(".:") for found in _NUMBER.findall(text)}
    return digits | {str(_NUMERALS.index(word)) for word in _words(text) if word in _NUMERALS}


def names_in(text: str) -> list[str]:
    """Give the words that begin with a capital within a sentence, in their order."""
    found = []
    for word in _WORD.finditer(text):
        name = re.sub(r"['’]s$", "", word[0])
        within = not _SENTENCE_START.search(text[max(word.start() - 3, 0) : word.start()] if word.start() else "")
        if within and len(name) > 1 and name[0].isupper():
            found.append(name)
    return list(dict.fromkeys(found))


def denies(text: str) -> bool:
    """Whether a text has a word that denies, in English or German."""
    return _DENIAL.search(text) is not None


def _from_nowhere(answer: str, told: Sequence[str], with_names: bool) -> list[str]:
    """Give the numbers and names of an answer that no other text has."""
    numbers = set().union(*map(numbers_in, told))
    words = {re.sub(r"['’]s$", "", word) for text in told for word in _words(text)}
    found = [number for number in _NUMBER.findall(answer) if not numbers_in(number) <= numbers]
    return [*dict.fromkeys(found), *(_unknown(names_in(answer), words) if with_names else [])]


def _unknown(names: Iterable[str], words: Collection[str]) -> list[str]:
    return [name for name in names if name.lower() not in words]


def _otherwise(sample: Sample, seed: Sample) -> str | None:
    """Say how an answer differs from a seed's in what decides; None where it does not, or asks for the opposite."""
    if denies(sample.question) != denies(seed.question):
        return None
    if denies(sample.answer) != denies(seed.answer):
        return "one of the two answers denies, the other does not"
    if _opposite(sample.answer, seed.answer) or _opposite(seed.answer, sample.answer):
        return "a word of one answer is the opposite of one in the other"
    own, given = numbers_in(sample.answer), numbers_in(seed.answer)
    same_numbers_asked = numbers_in(sample.question) == numbers_in(seed.question)
    if own and given and own.isdisjoint(given) and same_numbers_asked:
        return "the two answers have different numbers"
    return None


def _opposite(answer: str, other: str) -> bool:
    """Whether a word stands with `un` or `non` before it in the other text only, as safe and unsafe do."""
    own, others = set(_words(answer)), {*_words(other)} - {"unless"}
    return any(len(word) > 3 and word not in others and {f"un{word}", f"non{word}"} & others for word in own)


def _capitals_are_common(texts: Iterable[str]) -> bool:
    capitals = words = 0
    for text in texts:
        capitals += len(names_in(text))
        words += len(_words(text))
    return capitals > CAPITALS * words


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
