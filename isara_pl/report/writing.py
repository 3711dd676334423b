"""report.html as a file."""

from collections.abc import Sequence
from pathlib import Path

from isara_pl.growth.retrieval import Encoder
from isara_pl.report import page
from isara_pl.report.contents import Report
from isara_pl.report.gather import gather
from isara_pl.run.files import write_whole

FILE = "report.html"


def write_report(run_dir: Path, baselines: Sequence[tuple[str, Path]], encoder: Encoder | None, target: Path) -> Report:
    """Write the report of a run.

    Args:
        run_dir: The run folder.
        baselines: Other runs by their names.
        encoder: The run's sentence encoder; None does without.
        target: The file to write.

    Returns:
        What it shows.

    Raises:
        InputError: If a folder cannot be reported on, or the file cannot be written.
    """
    report = gather(run_dir, baselines, encoder)
    write_whole(target, page.render(report))
    return report
