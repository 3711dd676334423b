"""The page of an alignment: what to use, the leaderboard, and the way to each run's own page."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from isara_pl.report import page as page_of_a_run
from isara_pl.run.files import write_whole

FILE = "report.html"
TEMPLATE = Path(__file__).with_name("page.html")
STYLE = Path(page_of_a_run.__file__).with_name("page") / "style.css"


def write_page(
    folder: Path,
    about: Sequence[tuple[str, str]],
    sentences: Sequence[str],
    board: Sequence[Sequence[str]],
    runs: Sequence[Path],
) -> None:
    """Write the page; it holds what names hold as text, and needs nothing but itself.

    Args:
        folder: Where to; links are relative to it.
        about: What the alignment is of, by names.
        sentences: The verdict; what to do comes first.
        board: The leaderboard: a head, and a row for each contestant.
        runs: Run folders inside of the folder.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    links = [(run.relative_to(folder).as_posix(), run / FILE) for run in runs]
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=folder.resolve().name,
        about=about,
        sentences=sentences,
        board=board,
        links=[(name, f"{name}/{FILE}" if page.exists() else None) for name, page in links],
        style=Markup(STYLE.read_text(encoding="utf-8")),
    )
    write_whole(folder / FILE, text)
