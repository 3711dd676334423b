"""Run folders as people name them: `RUN` or `NAME=RUN`."""

import re
from pathlib import Path

from isara_pl.errors import InputError, did_you_mean_path
from isara_pl.run.paths import expanded

SEED_SUFFIX = re.compile(r"(?<=.)[-_](seed[-_]?|s)\d+$")
USUAL_PLACE = "runs"  # where the configs of this project write


def named_run(text: str, option: str) -> tuple[str, Path]:
    """Give the name of a method, and the folder of a run of it, from `RUN` or `NAME=RUN`.

    Without NAME the method is called like the folder, without a seed at the end. Errors name the option that it is of.

    Raises:
        InputError: If there is no such folder; the message names the nearest one that exists.
    """
    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists():
        rest = text
        name = SEED_SUFFIX.sub("", Path(text).resolve().name)
    rest = expanded(rest)  # a `~` behind NAME= is none that a shell expands
    if not name or not rest or not Path(rest).is_dir():
        raise InputError(
            f"{option}: {text!r} names no run folder.{_nearest(rest)} Allowed: RUN or NAME=RUN, with an existing folder"
        )
    return name, Path(rest)


def run_folder_at(text: str, option: str) -> Path:
    """Give a run folder that exists; errors name the option that it is of.

    Raises:
        InputError: If there is no such folder; the message names the nearest one that exists.
    """
    if not text or not Path(text).is_dir():
        raise InputError(f"{option}: {text!r} is no folder.{_nearest(text)} Allowed: the folder of a run")
    return Path(text)


def _nearest(text: str) -> str:
    usual = str(Path(USUAL_PLACE, text))
    return did_you_mean_path(text, Path.is_dir) or did_you_mean_path(usual, Path.is_dir)
