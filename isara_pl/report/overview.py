"""A page about several runs: what to know, tables, and the way to each run's own page."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from isara_pl.report.page import FILE, source, template
from isara_pl.results.compare import Section
from isara_pl.run.files import write_whole


def write_overview(
    folder: Path,
    kind: str,
    about: Sequence[tuple[str, str]],
    sentences: Sequence[str],
    sections: Sequence[Section],
    runs: Sequence[Path],
) -> Path:
    """Write the page and say where; it holds what names hold as text, and needs nothing but itself.

    Args:
        folder: Where to; links are relative to it.
        kind: What it is about, such as `alignment`.
        about: Of what, by names.
        sentences: What was found; the first is what to know.
        sections: Tables, with what they mean.
        runs: Run folders inside of the folder.
    """
    links = [(run.relative_to(folder).as_posix(), run / FILE) for run in runs]
    text = template("overview.html").render(
        title=folder.resolve().name,
        kind=kind,
        about=about,
        sentences=sentences,
        sections=sections,
        links=[(name, f"{name}/{FILE}" if page.exists() else None) for name, page in links],
        style=Markup(source("style.css")),
    )
    write_whole(folder / FILE, text)
    return folder / FILE
