"""The runs of an alignment: one for each contestant and fold, in this process, each finished once."""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isara_pl.align.contestants import Contestant
from isara_pl.errors import InputError
from isara_pl.results.run import read_config
from isara_pl.run.files import POOL, write_whole

DONE = "finished.json"
OUTPUT = "output.log"
RunCommand = Callable[[list[str]], None]  # runs a subcommand of Lightning with its options


@dataclass(frozen=True)
class Trial:
    """A run of a contestant.

    Attributes:
        contestant: Whose.
        config: Its configuration.
        pairs: How many pairs it is trained on.
        items: How many it is measured on.
        where: What it is measured on, for people.
    """

    contestant: Contestant
    config: dict[str, Any]
    pairs: int
    items: int
    where: str

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config["run_dir"])

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it is not finished."""
        done = self.folder / DONE
        return float(json.loads(done.read_text(encoding="utf-8"))["seconds"]) if done.exists() else None

    @property
    def config_file(self) -> Path:
        """Where its configuration stands, beside its folder."""
        return self.folder.parent / f"{self.folder.name}.yaml"

    @property
    def is_of_other_options(self) -> bool:
        """Whether what is there was begun with another configuration; a folder may have been moved as a whole."""
        there = self.config_file
        return there.exists() and _without_place(read_config(there)) != _without_place(self.config)

    def refuse_other_options(self) -> None:
        """Raise an InputError if it is finished, but with another configuration."""
        if self.seconds is not None and self.is_of_other_options:
            raise InputError(
                f"{self.contestant.name}, {self.where}: {self.folder} holds a finished run with other options, those "
                f"of {self.config_file}. Remove that folder, or give another name or another --to"
            )


def carry_out(trial: Trial, run_command: RunCommand) -> None:
    """Carry a run out, unless it is finished; one that was cut off goes on. What it prints goes into its folder.

    Raises InputError if it cannot be carried out, or is finished with other options; the message says which run it is.
    """
    folder, config = trial.folder, trial.config_file
    if trial.seconds is not None:
        trial.refuse_other_options()
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(config, yaml.safe_dump(trial.config, sort_keys=False, allow_unicode=True))
    words = ["fit" if trial.contestant.trains else "validate", "--config", str(config)]
    if trial.contestant.trains and (folder / POOL).exists():
        words += ["--ckpt_path", "last"]
    began = time.monotonic()
    try:
        with _output_in(folder / OUTPUT):
            run_command(words)
    except InputError as error:
        raise InputError(f"{trial.contestant.name}, {trial.where}: {error} ({folder / OUTPUT})") from error
    gc.collect()  # its model, which is in cycles, is to be gone before the next one is loaded
    write_whole(folder / DONE, json.dumps({"seconds": round(time.monotonic() - began, 1)}) + "\n")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    write_whole(path, lines_of(rows))


def lines_of(rows: Sequence[dict[str, Any]]) -> str:
    """Give rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _without_place(config: dict[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, default=str).replace(str(Path(str(config.get("run_dir"))).parent), "")


@contextmanager
def _output_in(path: Path) -> Iterator[None]:
    """Let all that is printed meanwhile go to the end of a file, whoever prints it: a run says much."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with path.open("ab") as file:
        for number, _ in kept:
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, before in kept:
                os.dup2(before, number)
                os.close(before)
