"""Some samples of an outer epoch as a table, for loggers that take one."""

import random
import re
from collections.abc import Sequence

from isara_pl.errors import printable
from isara_pl.growth.pool import Rejected, SamplePool
from isara_pl.run.files import REJECTED, entries
from isara_pl.run.randomness import derive_seed

COLUMNS = ("status", "id", "question", "answer", "filter", "figure", "reason")
Row = list[str | float | None]

# what Markdown or HTML read as more than a character
_MARKUP = re.compile(r"""[&<>"'\\`*_{}\[\]()#+\-.!|~^$:]""")


def drawn_rows(pool: SamplePool, outer_epoch: int, most: int, seed: int) -> list[Row]:
    """Draw samples of an outer epoch, and candidates that its filters rejected; each in the order of the run.

    Args:
        pool: The pool; its folder holds the rejected candidates.
        outer_epoch: Which outer epoch.
        most: Most samples, and most rejected candidates.
        seed: The run's seed, which decides the draw.

    Returns:
        Rows of `COLUMNS`; `filter`, `figure` and `reason` are those of a rejected candidate's filter, else None.
    """
    accepted: list[Row] = [
        ["accepted", sample.id, sample.question, sample.answer, None, None, None]
        for sample in pool.accepted(outer_epoch)
    ]
    taken = [] if pool.folder is None else entries(pool.folder / REJECTED, Rejected.from_json)
    rejected: list[Row] = [
        ["rejected", one.id, one.question, one.answer, entry.filter, entry.verdict.figure, entry.verdict.reason]
        for entry in taken
        if (one := entry.candidate).outer_epoch == outer_epoch
    ]
    draw = random.Random(derive_seed(seed, "logged samples", outer_epoch))
    return [
        row
        for rows in (accepted, rejected)
        for row in (rows[place] for place in sorted(draw.sample(range(len(rows)), min(most, len(rows)))))
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table in which every text stands literally, whatever Markdown or HTML it holds.

    Args:
        rows: Rows of `COLUMNS`.
    """
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([_cell(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return f"{value:.4g}"
    plain = printable(value.replace("\r\n", "\n"))
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", plain).replace("\n", "<br>")
