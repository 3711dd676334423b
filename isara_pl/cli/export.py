"""`isara-pl export`: a finished run for others, as adapter, merged model and data set with their cards."""

import re
from collections.abc import Sequence
from pathlib import Path

from isara_pl.cli.usage import PlainErrors
from isara_pl.errors import InputError
from isara_pl.results.named_runs import run_folder_at
from isara_pl.run.paths import all_expanded


def main(args: Sequence[str]) -> None:
    """Run `isara-pl export`.

    Args:
        args: The arguments after `export`.

    Raises:
        InputError: If the run cannot be exported.
    """
    options = all_expanded(_parser().parse_args(list(args)))
    folder, target = run_folder_at(options.run, "export"), Path(options.to)
    _check_licence(options.license)
    _check_repository(options.push)
    _refuse_used(target)

    from isara_pl.export.exporting import export  # only here: torch takes seconds to import

    export(folder, target, options.license, options.push)


def _parser() -> PlainErrors:
    parser = PlainErrors(
        prog="isara-pl export",
        allow_abbrev=False,
        description="Write what others can use of a run: adapter/ (LoRA), model/ (base and adapter merged, with the "
        "tokenizer) and dataset/ (all pairs, as JSONL and Parquet), each with a card. The base model must be on this "
        "machine; without --push no network is used.",
    )
    parser.add_argument("run", type=str, metavar="RUN", help="Folder of a run of `fit` that left an adapter.")
    parser.add_argument(
        "--to", type=str, required=True, metavar="DIR", help="Folder to write into: a new one, or an empty one."
    )
    parser.add_argument(
        "--license",
        type=str | None,
        default=None,
        metavar="ID",
        help="Licence of model and data as the hub names it, such as apache-2.0 or cc-by-4.0; without it the cards "
        "name none. What the licences of the base model and of the seeds allow is for you to know.",
    )
    parser.add_argument(
        "--push",
        type=str | None,
        default=None,
        metavar="OWNER/NAME",
        help="Upload to the Hugging Face hub as well: the model to OWNER/NAME, the rest to OWNER/NAME-adapter and "
        "OWNER/NAME-data, your seeds included. Repositories that this makes are private; one that is there already "
        "stays as visible as it is. Needs a token (`hf auth login`).",
    )
    return parser


def _check_licence(given: str | None) -> None:
    if given is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", given):
        raise InputError(
            f"--license: {given!r} is no licence id. Allowed: one of the hub's, such as apache-2.0, cc-by-4.0 or other"
        )


def _check_repository(given: str | None) -> None:
    # the hub's rules: 96 characters, endings included; no `--`, no `..`, no `-` or `.` at an end
    part = r"(?!.*(?:--|\.\.))[A-Za-z0-9_][\w.-]{0,87}(?<![.-])"
    if given is not None and not re.fullmatch(f"{part}/{part}", given, re.ASCII):
        raise InputError(
            f"--push: {given!r} names no repository. Allowed: OWNER/NAME, each of letters, digits, `-`, `_` and `.`, "
            "and of at most 88 characters"
        )


def _refuse_used(target: Path) -> None:
    """Refuse to overwrite anything."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(
            f"--to: {target} is there already, and is not an empty folder. Nothing is overwritten: give another one"
        )
    if target.resolve() == Path.cwd():  # it would be replaced under the user's feet
        raise InputError(f"--to: {target} is the folder that this was started in. Give a new one, such as export")
