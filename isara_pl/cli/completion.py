"""`isara-pl completion SHELL`: a script with which a shell completes subcommands, options and values."""

from argparse import SUPPRESS, Action
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

from jsonargparse import ArgumentParser, capture_parser

from isara_pl.cli.option_types import admits_text, choices, class_names
from isara_pl.cli.subcommands import LINES, OTHERS
from isara_pl.cli.usage import PlainErrors, subparsers
from isara_pl.errors import InputError


def main(args: Sequence[str]) -> None:
    """Run `isara-pl completion`.

    Args:
        args: The arguments after `completion`.

    Raises:
        InputError: If a package is missing.
        ArgumentError: If the arguments cannot be used.
    """
    parser = PlainErrors(
        prog="isara-pl completion",
        allow_abbrev=False,
        description="Print a script with which a shell completes the names of subcommands and options, values where "
        "there are few, and files. For bash: isara-pl completion bash > "
        "~/.local/share/bash-completion/completions/isara-pl. Print it again after an update.",
    )
    parser.add_argument("shell", type=Literal["bash", "zsh", "fish"], help="For which shell.")
    shell = parser.parse_args(list(args)).shell
    if find_spec("shtab") is None:
        raise InputError("completion: the package shtab is missing; pip install 'isara_pl[completion]'")
    print(script(shell))


def script(shell: str) -> str:
    """Give the script for a shell.

    Args:
        shell: Its name.
    """
    import shtab  # an extra

    from isara_pl.cli.lightning import run  # with torch and Lightning

    parser = ArgumentParser(prog="isara-pl")
    parser.add_argument("--version", action="store_true", help="Show the version and exit.")
    commands = parser.add_subcommands()
    lightnings = subparsers(capture_parser(run, ["fit"]))
    others = {name: capture_parser(import_module(module).main, []) for name, module in OTHERS.items()}
    for name, line in LINES.items():
        subparser = (lightnings | others)[name]
        subparser.description = line
        commands.add_subcommand(name, subparser, help=line)
        for action in subparser._actions:
            _prepare(action, shtab.FILE)
    return str(shtab.complete(parser, shell))


def _prepare(action: Action, files: object) -> None:
    """Tell shtab what completes an option's value: the few that there are, or else files, if it takes text."""
    hint = getattr(action, "_typehint", None)
    known = class_names(hint) or ([] if admits_text(hint) else choices(hint))
    if action.option_strings and not action.option_strings[0].startswith("-"):  # how jsonargparse notes a link
        action.help = SUPPRESS
    elif known:
        action.choices = known
    elif admits_text(hint) or action.metavar == "CONFIG" or action.dest == "config":
        action.complete = files  # type: ignore[attr-defined]  # shtab's way
