"""The words of a text in any script; in scripts that put no space between words, each character is one."""

import re
import unicodedata

import regex

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
