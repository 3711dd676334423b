"""The subcommands that are functions: their signatures make their command lines, and their docstrings the help."""

import os
import re
import shlex
from argparse import SUPPRESS, Action
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from inspect import Parameter, signature
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import docstring_parser
from jsonargparse import ArgumentParser, capture_parser
from jsonargparse.typing import NonNegativeInt

from isara_pl.cli.errors import PlainErrors, subparsers
from isara_pl.cli.help import LIGHTNINGS, LINES, TOLD
from isara_pl.cli.options import admits_text, all_expanded, choices, class_names
from isara_pl.errors import InputError, printable
from isara_pl.results import alpha as alpha_ranges
from isara_pl.results.compare import as_markdown, as_text, named_run, run_folder_at
from isara_pl.results.compare import compare as compared
from isara_pl.results.run import Run as RunFolder
from isara_pl.results.run import read_config
from isara_pl.run.files import write_whole
from isara_pl.run.notices import print_as_sentences

Run = Annotated[str, "RUN"]  # the second is what stands for the value in the help
Runs = Annotated[list[str], "[NAME=]RUN"]
File = Annotated[str | None, "FILE"]


def compare(
    runs: Runs,
    reference: Annotated[str | None, "NAME"] = None,
    outer_epochs: Literal["last", "all"] = "last",
    clean: bool = False,
    alpha: bool = False,
    resamples: Annotated[int, "N"] = 10_000,
    seed: Annotated[NonNegativeInt, "N"] = 0,
    json: File = None,
    csv: File = None,
    markdown: File = None,
) -> None:
    """Compare methods on the same items, from the evaluation/ of their run folders.

    Fitted runs are taken to start from one pretrained model.

    Args:
        runs: Run folders. Without NAME the method is called like the folder, without a seed at the end (-seed3).
            Runs of one name are pooled.
        reference: The method that the others are compared to. Without it: SFT on the seeds, else the pretrained model.
        outer_epochs: Of a fitted run, the last outer epoch measured, or every one as a row.
        clean: Leave out the items that some run was trained on.
        alpha: From one run with alpha_stopping.alpha 0: where every α would have stopped it, and the figures there.
        resamples: Resamples of the bootstrap.
        seed: Seed of the resamples.
        json: Write json here too.
        csv: Write csv here too.
        markdown: Write markdown here too.
    """
    command = {"name": "compare", **locals()}
    named = [named_run(text, "compare") for text in runs]
    if alpha:
        if len(named) != 1 or reference or clean or outer_epochs != "last":
            raise InputError("--alpha takes one run, and beside it --json, --csv and --markdown only")
        sections, found, table = alpha_ranges.report(RunFolder(named[0][1]))
    else:
        sections, found, table = compared(named, reference, outer_epochs == "all", clean, resamples, seed)
    print(as_text(sections))
    for path, text in (
        (json, dumps({"command": command, **found}, allow_nan=False, indent=2) + "\n"),
        (csv, table),
        (markdown, as_markdown(sections)),
    ):
        if path is not None:
            write_whole(Path(path), text)
            print(f"written: {path}")


def report(run: Run, *, baselines: Runs = [], to: File = None) -> None:  # noqa: B006  # only read
    """Write report.html: whether a run helped, why it stopped, what it cost, and every sample with its lineage.

    It only reads the run, also while that is going on, and needs no network.

    Args:
        run: The run folder (--run_dir of its fit).
        baselines: Run folders to compare with, such as SFT on the seeds. Runs of one name are pooled.
        to: Where to write it. Without it: RUN/report.html.
    """
    run_dir = run_folder_at(run, "report")
    read = RunFolder(run_dir)
    others = [named_run(text, "--baselines") for text in baselines]

    # only here: torch takes seconds to import
    from isara_pl.models.loading import quieten
    from isara_pl.report import findings
    from isara_pl.report.curves import encoder_of
    from isara_pl.report.page import FILE, write_report

    quieten()
    try:
        encoder = encoder_of(read)
    except InputError as error:
        print(printable(f"no map: {error}"))
        encoder = None
    target = Path(to) if to else run_dir / FILE
    print(printable(findings.as_text(write_report(read, others, encoder, target).findings)))
    print(printable(f"\n{target}: the whole report, for a browser"))


def export(
    run: Run,
    *,
    to: Annotated[str, "DIR"],
    license: Annotated[str | None, "ID"] = None,
    push: Annotated[str | None, "OWNER/NAME"] = None,
) -> None:
    """Write what others can use of a run: adapter/, model/ and dataset/, each with a card.

    The adapter is of LoRA, the model is base and adapter merged, with the tokenizer, and the data set holds all pairs,
    as JSONL and Parquet. The base model must be on this machine; without --push no network is used.

    Args:
        run: Folder of a run of `fit` that left an adapter.
        to: Folder to write into: a new one, or an empty one.
        license: Licence of model and data as the hub names it, such as apache-2.0 or cc-by-4.0; without it the cards
            name none. What the licences of the base model and of the seeds allow is for you to know.
        push: Upload to the Hugging Face hub as well: the model to OWNER/NAME, the rest to OWNER/NAME-adapter and
            OWNER/NAME-data, your seeds included. Repositories that this makes are private; one that is there already
            stays as visible as it is. Needs a token (`hf auth login`).
    """
    folder, target = run_folder_at(run, "export"), Path(to)
    _refuse(target, license, push)

    from isara_pl.export.exporting import export as write  # only here: torch takes seconds to import

    write(folder, target, license, push)


def serve(
    run: Run,
    *,
    port: Annotated[NonNegativeInt, "N"] = 8000,
    python: Annotated[str, "PYTHON"] = "python",
    start: bool = False,
) -> None:
    """Print the command that starts a vLLM server for a run: its model, and what its adapter and objective need.

    The server listens on this machine alone.

    Args:
        run: The run folder; of a run that has not begun, its configuration file.
        port: Where the server listens.
        python: Interpreter of the environment that holds vLLM.
        start: Start the server as well, in place of this command.
    """
    is_config, or_else = Path(run).is_file(), ", or its configuration file where it has not begun"
    config = read_config(Path(run)) if is_config else RunFolder(run_folder_at(run, "serve", or_else)).config

    # only here: torch takes seconds to import
    from isara_pl.generation.serving import server_command, wanted_by
    from isara_pl.models.precision import fast_precision

    precision, _ = fast_precision(str((config.get("trainer") or {}).get("accelerator", "auto")))
    variables, words = server_command(wanted_by(config, run, precision), python, port)
    print(" ".join([*(f"{name}={value}" for name, value in variables.items()), shlex.join(words)]), flush=True)
    if start:
        try:
            os.execvpe(words[0], words, {**os.environ, **variables})
        except OSError as error:
            raise InputError(
                f"--python: {python} cannot be started ({error.strerror}). Allowed: an interpreter with vLLM"
            ) from None


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script with which a shell completes subcommands, options, values where there are few, and files.

    For bash: isara-pl completion bash > ~/.local/share/bash-completion/completions/isara-pl. Print it again after an
    update.

    Args:
        shell: For which shell.
    """
    if find_spec("shtab") is None:
        raise InputError("completion: the package shtab is missing; pip install 'isara_pl[completion]'")
    import shtab  # an extra

    from isara_pl.cli.lightning import run  # with torch and Lightning

    whole = ArgumentParser(prog="isara-pl")
    whole.add_argument("--version", action="store_true", help="Show the version and exit.")
    subcommands = whole.add_subcommands()
    parsers = subparsers(capture_parser(run, [*LIGHTNINGS])) | {name: parser_of(name) for name in COMMANDS}
    parsers |= {name: PlainErrors(prog=f"isara-pl {name}", add_help=False) for name in TOLD}
    for name, line in LINES.items():
        parsers[name].description = line
        subcommands.add_subcommand(name, parsers[name], help=line)
        for action in parsers[name]._actions:
            _complete(action, shtab.FILE)
    print(shtab.complete(whole, shell))


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (compare, report, export, serve, completion)
}


def run_command(name: str, args: Sequence[str]) -> None:
    """Run a command with the arguments behind its name; an InputError or ArgumentError says what is wrong."""
    print_as_sentences()
    options = all_expanded(parser_of(name).parse_args(list(args)))
    COMMANDS[name](**vars(options))


def parser_of(name: str) -> PlainErrors:
    """Give a command's parser. What has no default is positional, unless only its name can give it.

    jsonargparse's own reading of a signature knows no flags, and no lists of words.
    """
    text = docstring_parser.parse(COMMANDS[name].__doc__ or "")
    helps = {described.arg_name: described.description for described in text.params}
    parser = PlainErrors(prog=f"isara-pl {name}", allow_abbrev=False, description=text.description)
    for option in signature(COMMANDS[name]).parameters.values():
        kind: Any = option.annotation
        how: dict[str, Any] = {"help": helps[option.name]}
        if get_origin(kind) is Annotated:
            kind, how["metavar"] = get_args(kind)
        if kind is bool:
            how |= {"action": "store_true"}
        elif get_origin(kind) is list:
            how |= {"type": str, "nargs": "+"}
        else:
            how |= {"type": kind}
        if option.default is not Parameter.empty:
            parser.add_argument(f"--{option.name}", default=option.default, **how)
        elif option.kind is Parameter.KEYWORD_ONLY:
            parser.add_argument(f"--{option.name}", required=True, **how)
        else:
            parser.add_argument(option.name, **how)
    return parser


def _complete(action: Action, files: object) -> None:
    """Tell shtab what completes an option's value: the few that there are, or else files, if it takes text."""
    hint = getattr(action, "_typehint", None)
    known = class_names(hint) or ([] if admits_text(hint) else choices(hint))
    if action.option_strings and not action.option_strings[0].startswith("-"):  # how jsonargparse notes a link
        action.help = SUPPRESS
    elif known:
        action.choices = known
    elif admits_text(hint) or action.metavar == "CONFIG" or action.dest == "config":
        action.complete = files  # type: ignore[attr-defined]  # shtab's way


def _refuse(target: Path, license: str | None, repository: str | None) -> None:
    """Refuse an export's options before anything is loaded."""
    if license is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license):
        raise InputError(
            f"--license: {license!r} is no licence id. Allowed: one of the hub's, such as apache-2.0, cc-by-4.0 or "
            "other"
        )
    # the hub's rules: 96 characters, endings included; no `--`, no `..`, no `-` or `.` at an end
    part = r"(?!.*(?:--|\.\.))[A-Za-z0-9_][\w.-]{0,87}(?<![.-])"
    if repository is not None and not re.fullmatch(f"{part}/{part}", repository, re.ASCII):
        raise InputError(
            f"--push: {repository!r} names no repository. Allowed: OWNER/NAME, each of letters, digits, `-`, `_` and "
            "`.`, and of at most 88 characters"
        )
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(
            f"--to: {target} is there already, and is not an empty folder. Nothing is overwritten: give another one"
        )
    if target.resolve() == Path.cwd():  # it would be replaced under the user's feet
        raise InputError(f"--to: {target} is the folder that this was started in. Give a new one, such as export")
