"""Texts and numbers in sentences."""

import math
from collections.abc import Mapping

UNKNOWN = "–"
LONGEST_QUOTE = 100  # characters


def quoted(text: str) -> str:
    """Give what a model or a file says in quotation marks on one line, shortened where it is long."""
    line = " ".join(text.split())
    return f"“{line if len(line) <= LONGEST_QUOTE else line[: LONGEST_QUOTE - 1].rstrip() + '…'}”"


def count(number: int) -> str:
    """Give a whole number, its thousands set apart."""
    return f"{number:,}"


def figure(value: float | None) -> str:
    """Give a figure to four digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Give a time in its two largest units.

    Example:
        >>> duration(0.25), duration(75), duration(7384)
        ('0.25 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def listed(parts: list[str]) -> str:
    """Give parts as an enumeration; nothing where there are none."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def counted(number: int, noun: str) -> str:
    """Give a number of things; more than one have an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def to_accept_more(taken: Mapping[str, int]) -> str:
    """Say what to change so that an outer epoch accepts more than after what each filter took; ends a sentence."""
    most = max(taken, key=lambda name: taken[name], default=None)
    mend = (
        "raise max_new_tokens of data.question_sampling and data.answer_sampling (Unfinished took most),"
        if most == "Unfinished"
        else "loosen the filter that took most,"
    )
    return (
        f"lower alpha_stopping.alpha, {mend} raise the temperature of data.question_sampling, or use a stronger model"
    )
