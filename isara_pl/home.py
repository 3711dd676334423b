"""Paths in the user's home folder, as `~/runs/mine` names them where no shell has expanded that."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from isara_pl.errors import InputError


def expanded(path: str) -> str:
    """Give a path with the home folder in place of a `~` that it begins with.

    Args:
        path: The path; a text that does not begin so stays as it is.

    Raises:
        InputError: If this user has no home folder.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        if path != "~" and not path.startswith("~/"):  # that of a user who is unknown: a name like any other
            return path
        raise InputError(f"{path}: there is no home folder here, since HOME is not set. Give the whole path") from None


def all_expanded(values: Any) -> Any:
    """Give options with every path in them expanded: whoever reads one later then reads the same.

    Args:
        values: Options, lists and mappings of them included.

    Raises:
        InputError: As of `expanded`.
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
