"""`isara-pl report`: what a run came to, as one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from isara_pl.cli.usage import PlainErrors
from isara_pl.errors import InputError, printable
from isara_pl.results.named_runs import named_run, run_folder_at
from isara_pl.run.paths import all_expanded


def main(args: Sequence[str]) -> None:
    """Run `isara-pl report`.

    Args:
        args: The arguments after `report`.

    Raises:
        InputError: If there is no such run, or a file of it is damaged.
        ArgumentError: If the arguments cannot be used.
    """
    options = all_expanded(_parser().parse_args(list(args)))
    run_dir = run_folder_at(options.run, "report")
    baselines = [named_run(text, "--baselines") for text in options.baselines]

    # only here: torch takes seconds to import
    from isara_pl.report.embedding import encoder_of
    from isara_pl.report.findings import as_text
    from isara_pl.report.writing import FILE, write_report
    from isara_pl.results.run import Run

    run = Run(run_dir)
    try:
        encoder = encoder_of(run)
    except InputError as error:
        print(printable(f"no map: {error}"))
        encoder = None
    target = Path(options.to) if options.to else run_dir / FILE
    report = write_report(run, baselines, encoder, target)
    print(printable(as_text(report.findings)))
    print(printable(f"\n{target}: the whole report, for a browser"))


def _parser() -> PlainErrors:
    parser = PlainErrors(
        prog="isara-pl report",
        allow_abbrev=False,
        description="Write report.html: whether a run helped, why it stopped, what it cost, and every sample with its "
        "lineage. It only reads the run, also while that is going on, and needs no network.",
    )
    parser.add_argument("run", type=str, metavar="RUN", help="The run folder (--run_dir of its fit).")
    parser.add_argument(
        "--baselines",
        type=str,
        nargs="+",
        default=[],
        metavar="[NAME=]RUN",
        help="Run folders to compare with, such as SFT on the seeds. Runs of one name are pooled.",
    )
    parser.add_argument(
        "--to", type=str | None, default=None, metavar="FILE", help="Where to write it. Without it: RUN/report.html."
    )
    return parser
