"""What can be told of a command before torch and Lightning are imported, which takes seconds.

The files that options name are read, and names of options are held against those that the parser had when it was last
built. Whatever else may be wrong, the parser itself finds. Nothing is refused here that it would not refuse.
"""

import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from isara_pl.cli.errors import LINK, LINKED, UsageError, follows_from
from isara_pl.cli.help import HELP
from isara_pl.cli.options import config_files, config_text, place, what_is_wrong
from isara_pl.errors import InputError, did_you_mean, did_you_mean_path
from isara_pl.growth.hub_data import source_of
from isara_pl.growth.samples import read_questions, read_samples
from isara_pl.models.sources import SOURCES, is_local
from isara_pl.run.files import write_whole

GROUPS = ("data", "model")
PAIRS, QUESTIONS = ("data.seeds", "data.held_out"), ("data.questions",)
MODELS = ("model.name", "data.encoder")
# what the parser is made of
MADE_OF = ("isara_pl", "jsonargparse", "docstring-parser", "lightning", "torch", "transformers")


def first_look(words: Sequence[str]) -> None:
    """Refuse what is plainly wrong with a subcommand of Lightning.

    Raises:
        InputError: If a file of pairs or questions cannot be used, or a model is nowhere.
        UsageError: If no option has a name, or a configuration file is none.
    """
    if any(word.startswith("--print_config") or word in HELP for word in words):
        return
    files = config_files(words)
    for file in files:
        if not Path(file).exists() and isinstance(yaml.safe_load(file), str):  # else it is what a file may hold
            raise UsageError(f"--config {file}: file does not exist.{did_you_mean_path(file)}")
        wrong = what_is_wrong(file) if Path(file).is_file() else None
        if wrong:
            raise UsageError(wrong)
    configs = [yaml.safe_load(config_text(file)) for file in files if Path(file).is_file()]
    _check_names(words, configs)
    given = _options(words, configs)
    columns = given.get("data.columns")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are said when the run itself reads the file
        for option in (*PAIRS, *QUESTIONS):
            if isinstance(given.get(option), str):
                read = read_samples if option in PAIRS else read_questions
                source = source_of(given[option], option)  # of the hub nothing is asked yet
                if columns is None and isinstance(source, Path) and source.is_file():
                    read(source)
    for option in MODELS:
        _check_model(given.get(option), option)


def _check_model(name: object, option: str) -> None:
    """Refuse a hub id of which nothing is here, where there is no hub."""
    if not isinstance(name, str) or "/" not in name or is_local(name):
        return
    from isara_pl.models.hub import why_not_there  # only here: importing huggingface_hub takes a while

    why = why_not_there(name)
    if why:
        raise InputError(f"{option}: this machine has no model {name!r}, and {why}. {SOURCES}")


def _options(words: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give the options of data and model as they were given; the last one of each decides."""
    found: dict[str, Any] = {}
    for config in configs:
        for above in GROUPS:
            group = config.get(above)
            found |= {f"{above}.{name}": value for name, value in group.items()} if isinstance(group, dict) else {}
    for option, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = option.partition("=")
        if name.startswith(tuple(f"--{above}." for above in GROUPS)):
            found[name[2:]] = value if equals else following
    return {name: None if value == "null" else value for name, value in found.items()}


def _check_names(words: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> None:
    names = json.loads(remembered(f"options-{words[0]}") or "[]")
    if not names:
        return
    links = {link["target"]: link["sources"] for link in (re.fullmatch(LINKED, name) for name in names) if link}
    known = [name for name in names if LINK not in name]
    for word in words[1:]:
        given = word.partition("=")[0]
        if given.startswith("--") and given[2:] in links:
            raise UsageError(follows_from(links[given[2:]], given[2:], known))
        if given.startswith("--") and not _is_known(given, known):
            raise UsageError(f"no option is named {given}.{did_you_mean(given, known)}")
    for key in (key for config in configs for key in _keys(config)):
        if not _is_known(f"--{key}", known):
            names = [name[2:] for name in known]
            raise UsageError(f"{place(key, words)}no option is named {key}.{did_you_mean(key, names)}")


def _keys(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _is_known(given: str, known: Sequence[str]) -> bool:
    """Whether it is an option, holds options, or belongs to one that takes a class, whose own are not known."""
    given = given.rstrip("+")
    if given in known or given[2:] in known or any(name.startswith(f"{given}.") for name in known):
        return True
    above = [name for name in known if given.startswith(f"{name}.")]
    inside = [name for name in known if not name.endswith(".help")]
    return any(not any(name.startswith(f"{one}.") for name in inside) for one in above)


# -- what is remembered from one process to the next


def remember(name: str, text: str) -> None:
    """Keep a text in the user's cache, for as long as nothing changes that the parser is made of."""
    with suppress(InputError, OSError, RuntimeError):  # no room, or no home: then it is made anew each time
        write_whole(_file(name), text)


def remembered(name: str) -> str | None:
    """Give a text that was kept; None where there is none."""
    with suppress(OSError, RuntimeError, ValueError):
        return _file(name).read_text(encoding="utf-8")
    return None


def help_name(subcommand: str) -> str:
    """Name the help of a subcommand at this width of the terminal."""
    return f"help-{subcommand}-{shutil.get_terminal_size().columns}"


def _file(name: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "isara_pl" / "command_line" / _made_of() / f"{name}.txt"


@cache
def _made_of() -> str:
    """Name what the parser is made of: the packages' versions, and our own files as they are."""
    versions = [sys.version]
    for package in MADE_OF:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    own = Path(__file__).parents[1]
    folders = (own, own / "callbacks")  # the latter may be a link, into which rglob does not go
    files = sorted({path for folder in folders for path in folder.rglob("*.py")})
    versions += [f"{path} {path.stat().st_mtime_ns}" for path in files]
    return sha256("\n".join(versions).encode()).hexdigest()[:16]
