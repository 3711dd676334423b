"""The options of a run, as a report lists them: nothing in it names a place outside the run folder."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from isara_pl.models.sources import PACKAGE_SCHEME
from isara_pl.run.conditions import CONTENT

# what the pool does not depend on, but a reader asks for; the other options are those of conditions.json
ALSO = ("data.outer_epochs", "alpha_stopping.alpha", "data.held_out")
FIRST = ("model.name", "data.seeds", "data.held_out", "data.encoder")
A_PLACE = re.compile(r"~|\.{0,2}/|[A-Za-z]:[\\/]|\\\\")
IN_QUOTES = re.compile(r"'([^']*)'")


def facts(options: Mapping[str, Any], conditions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give the options that the pool depends on, some others and versions, by their names."""
    also = {name: options[name] for name in ALSO if isinstance(options.get(name), str | int | float)}
    known = {**{name: value for name, value in conditions.items() if not name.startswith(CONTENT)}, **also}
    names = [*(name for name in FIRST if name in known), *(name for name in known if name not in FIRST)]
    return [*((name, shown(known[name])) for name in names), ("isara_pl that wrote this report", version("isara_pl"))]


def without_place(name: str) -> str:
    """Give a file or folder by its last name only; hub ids and `package://…` are as they are."""
    if name.startswith(PACKAGE_SCHEME) or not (A_PLACE.match(name) or name.count("/") > 1):
        return name
    return PureWindowsPath(PurePosixPath(name).name).name


def shown(value: Any) -> str:
    """Give an option's value, of plain numbers, strings and lists, in words without the places of files."""
    if isinstance(value, list):
        return ", ".join(_described(each) if isinstance(each, str) else shown(each) for each in value) or "none"
    if isinstance(value, str):
        return without_place(value)
    return "none" if value is None else str(value)


def _described(text: str) -> str:
    """Take the places out of an object's description, such as `NoSuch(words='lists/of/words.txt')`."""
    if "(" not in text:
        return without_place(text)
    return IN_QUOTES.sub(lambda found: f"'{without_place(found[1])}'", text)
