"""What README, CONTRIBUTING and docs/ hold: commands, code, links and text that names code.

A command stands in an indented block or, whole, in `inline code`; all else has a fence that names its language.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "AGENTS.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
COMMAND, INLINE = "command", "inline"  # kinds of a block beside the languages of fences
LANGUAGES = {"python", "yaml", "json", "csv", "text"}
# what a command begins with; inline code that begins otherwise is no command
PROGRAMS = {"python", "isara-pl", "make", "docker", "pip", "source", "hf", "tensorboard", "wandb"}


@dataclass(frozen=True)
class Block:
    """A piece of a document.

    Attributes:
        document: Path below the root.
        line: Where it begins.
        kind: COMMAND, INLINE or a fence's language.
        text: Its text; of a command, one line.
    """

    document: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"

    @property
    def words(self) -> list[str]:
        """The words of a command, without its comment."""
        return shlex.split(self.text, comments=True)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """Give commands and code in the document's order."""
    return sorted([*_fenced_and_indented(document), *_inline(document)], key=lambda block: block.line)


def prose(document: str) -> list[str]:
    """Give the lines of a document, with empty ones for those in fences and indented blocks."""
    lines, kept, fenced = text_of(document).splitlines(), [], False
    for line in lines:
        is_fence = line.startswith("```")
        kept.append("" if fenced or is_fence or line.startswith("    ") else line)
        fenced ^= is_fence
    return kept


def _fenced_and_indented(document: str) -> Iterator[Block]:
    language: str | None = None
    held: list[str] = []
    start = 0
    for number, line in enumerate([*text_of(document).splitlines(), ""], start=1):
        if language is not None:
            if line.startswith("```"):
                yield Block(document, start, language, "\n".join(held) + "\n")
                language, held = None, []
            else:
                held.append(line)
        elif line.startswith("```"):
            language, start = line.removeprefix("```"), number + 1
        elif line.startswith("    "):
            start = start if held else number
            held.append(line.strip().removesuffix("\\"))
            if not line.endswith("\\"):
                yield Block(document, start, COMMAND, " ".join(" ".join(held).split()))
                held = []
    assert language is None, f"{document}:{start}: this fence does not end"


def _inline(document: str) -> Iterator[Block]:
    lines = prose(document)
    for found in re.finditer(r"`([^`]+)`", "\n".join(lines)):
        code = " ".join(found[1].split())
        if code.split()[0] in PROGRAMS and " " in code:
            line = "\n".join(lines)[: found.start()].count("\n") + 1
            yield Block(document, line, INLINE, code)


def links(document: str) -> list[str]:
    """Give the targets of a document's links that are no web addresses."""
    return links_in("\n".join(prose(document)))


def links_in(text: str) -> list[str]:
    """Give the targets of the links in a text that are no web addresses."""
    return [found for found in re.findall(r"\]\(([^)\s]+)\)", text) if not found.startswith("https://")]


def anchors(document: str) -> set[str]:
    """Give the names of a document's headings, as GitHub makes them."""
    headings = [line.lstrip("#").strip() for line in prose(document) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(document: str, heading: str) -> str:
    """Give the text below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text_of(document), re.MULTILINE | re.DOTALL)
    assert found, f"{document}: no heading {heading!r}"
    return found[1]
