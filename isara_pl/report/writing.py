"""report.html as a file."""

from collections.abc import Sequence
from pathlib import Path

from isara_pl.growth.retrieval import Encoder
from isara_pl.report import page
from isara_pl.report.contents import Report
from isara_pl.report.gather import gather
from isara_pl.results.run import Run
from isara_pl.run.files import write_whole

FILE = "report.html"


def write_report(run: Run, baselines: Sequence[tuple[str, Path]], encoder: Encoder | None, target: Path) -> Report:
    """Write the report of a run to a file, and give what it shows; `gather` says of what.

    Raises:
        InputError: If a folder cannot be reported on, or the file cannot be written.
    """
    report = gather(run, baselines, encoder)
    write_whole(target, page.render(report))
    return report
