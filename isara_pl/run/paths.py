"""Paths as users write them: `~/runs/mine` where no shell has expanded that, and those that start from a folder."""

import re
import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from isara_pl.errors import InputError

# options that name a folder which need not exist yet, and those that may name an existing one by a bare word
_MADE = ("run_dir", "dirpath", "save_dir")
_NAMING = (
    *("model.name", "data.encoder", "data.seeds", "data.held_out", "data.questions", "data.unlabelled_questions"),
    *("items", "prompts", "pairs", "judge.init_args.model"),
)
_ELSEWHERE = re.compile(r"[A-Za-z][\w+.-]*://")  # package://…, s3://…


def expanded(path: str) -> str:
    """Give a path with the home folder in place of a `~` that it begins with.

    A text that does not begin so stays as it is. Raises InputError if this user has no home folder.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        if path != "~" and not path.startswith("~/"):  # that of a user who is unknown: a name like any other
            return path
        raise InputError(f"{path}: there is no home folder here, since HOME is not set. Give the whole path") from None


def unnameable(path: str) -> str:
    """Say that the system's encoding has no name for a path, and what to do."""
    return (
        f"{path}: the encoding of this system's locale, {sys.getfilesystemencoding()}, has not all characters of this "
        "path. Set PYTHONUTF8=1 in the environment"
    )


def all_expanded(values: Any) -> Any:
    """Give options with every path in them expanded: whoever reads one later then reads the same.

    Raises InputError as of `expanded`.
    """
    if isinstance(values, str):
        return expanded(values)
    if isinstance(values, Namespace):
        for name, value in vars(values).items():
            vars(values)[name] = all_expanded(value)
    if type(values) is dict:
        return {name: all_expanded(value) for name, value in values.items()}
    if type(values) is list:
        return [all_expanded(value) for value in values]
    return values


def all_absolute(values: Any, option: str = "") -> Any:
    """Give options with every path in them absolute: they mean the same wherever they are read.

    A path is what begins with a dot, what stands in an option for one, and what lies in the current folder, unless it
    is a bare word: that may be anything. `option` is made of their names so far, from the outermost to the innermost,
    with dots between.
    """
    if isinstance(values, str):
        name, equals, run = values.partition("=")  # as report.baselines has them
        if equals and option.endswith("baselines") and not _exists(values):
            return f"{name}={Path(expanded(run)).absolute()}"
        return str(Path(values).absolute()) if _starts_from_here(values, option) else values
    if isinstance(values, Namespace):
        values = values.clone()  # what is saved, not what this run goes on with
        for name, value in [*values.items()]:  # those inside included
            values[name] = all_absolute(value, f"{option}.{name}")
    if type(values) is dict:
        return {name: all_absolute(value, f"{option}.{name}") for name, value in values.items()}
    if type(values) is list:
        return [all_absolute(value, option) for value in values]
    return values


def _starts_from_here(text: str, option: str) -> bool:
    """Whether a text means a place that depends on the current folder."""
    if not text or _ELSEWHERE.match(text) or Path(text).is_absolute():
        return False
    if text.startswith(("./", "../")) or text in (".", "..") or option.endswith(tuple(f".{name}" for name in _MADE)):
        return True
    bare = "/" not in text and not Path(text).suffix
    named = not bare or option.endswith(tuple(f".{name}" for name in _NAMING))
    return named and _exists(text)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # too long for a name
        return False
