"""Pieces of a card, in which text from files and models cannot become markup."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from isara_pl.errors import printable

LONGEST = 200  # characters of a foreign text in a card


def front_matter(fields: Mapping[str, Any]) -> str:
    """Give the YAML that a card begins with.

    Args:
        fields: Plain values; None leaves a field out.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    return f"---\n{yaml.safe_dump(given, sort_keys=False)}---\n"


def code(text: str) -> str:
    """Give a text of unknown origin as a code span, on one line, in which nothing is markup.

    Args:
        text: The text.
    """
    shown = " ".join(printable(text).split())
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " if not shown or "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{space}{shown}{space}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a table.

    Args:
        header: Names of the columns.
        rows: The cells, as `code` or plain text of ours.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def python(source: str) -> str:
    """Give Python code as a block.

    Args:
        source: The code; foreign text in it stands as string literals.
    """
    return f"```python\n{source.strip()}\n```\n"
