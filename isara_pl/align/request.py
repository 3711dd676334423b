"""What an alignment is asked for, and the runs that follow from it."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from isara_pl.align.contestants import (
    DECIDING,
    HARM_PREFERENCE,
    TITLES,
    Contestant,
    Options,
    configuration,
    evaluation_of,
    merge,
    rows_of,
)
from isara_pl.align.trials import DONE, Trial, lines_of, write_rows
from isara_pl.errors import InputError
from isara_pl.growth.hub_data import Source
from isara_pl.growth.samples import Sample, read_preferences, read_samples
from isara_pl.results.items import MEASURES, SCALED
from isara_pl.run.files import write_whole

FOLDS = 4
SEEDS, HELD_OUT = "seeds.jsonl", "held_out.jsonl"  # files of the runs in a folder
PROBE = "probe"  # folder of the runs that measure the machine
ALSO_CALLED = {"scaled_nll": SCALED}
NAME = re.compile(r"[\w-]+", re.ASCII)  # of a folder as well
COLUMNS = "columns"  # of the given files; those of the runs have our names


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        seeds: File of the pairs.
        model: The model, as for `--model.name`.
        held_out: File of further pairs that the winner is measured on once more; None without.
        to: Folder of all that is written.
        options: Options of all runs, in groups.
        also: Further contestants.
        decide_by: The measure that decides.
        folds: How many parts the pairs are split into.
        budget: Most seconds that it may take; None sets no limit.
        seed: Of all draws.

    Raises:
        InputError: If the measure is none, there are too few parts, or a further contestant has no name of its own.
    """

    seeds: Source
    model: str
    held_out: Source | None
    to: Path
    options: Options
    also: Sequence[Contestant]
    decide_by: str
    folds: int = FOLDS
    budget: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            allowed = ", ".join([*MEASURES, *ALSO_CALLED])
            raise InputError(f"--decide_by: {self.decide_by!r} is no measure. Allowed: {allowed}")
        if self.folds < 2:
            raise InputError(f"--folds: {self.folds} part leaves nothing to train on. Allowed: at least 2")
        for place, one in enumerate(self.also):
            if not NAME.fullmatch(one.name):
                raise InputError(
                    f"--also: {one.name!r} is no name for a method. Allowed: letters, digits, `-` and `_`, as in "
                    "longer=longer.yaml"
                )
            if one.name in TITLES or one.name in (other.name for other in self.also[:place]):
                raise InputError(
                    f"--also: {one.name} is the name of another method. Give a name of its own, as in "
                    f"my_{one.name}={one.name}.yaml; taken are {', '.join(TITLES)}"
                )

    @property
    def measure(self) -> str:
        """The measure by its name in the files."""
        return ALSO_CALLED.get(self.decide_by, self.decide_by)

    def refuse_another(self, seeds: Sequence[Sample]) -> None:
        """Remember what the folder is for, and refuse to mix it with something else of which any run is finished."""
        own = {
            "SEEDS": sha256(lines_of(rows_of(seeds, self.measure)).encode()).hexdigest(),
            "--model.name": self.model,
            # what runs measure; by which of these figures is decided may be asked again
            "--decide_by": self.measure if self.measure == HARM_PREFERENCE else "figures of answers",
            "--folds": self.folds,
            "--seed": self.seed,
            "--config": json.dumps(self.options, sort_keys=True, default=str),
        }
        path = self.to / "align.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        differing = [name for name in own if known.get(name) != own[name]]
        if known and differing:
            if any(self.to.glob(f"*/*/{DONE}")):
                raise InputError(
                    f"{self.to} holds another alignment: of another {', '.join(differing)}. Choose another folder with "
                    "--to, or repeat the command that began there"
                )
            shutil.rmtree(self.to / PROBE, ignore_errors=True)  # nothing came of it, as of a mistyped model
        if differing:
            write_whole(path, json.dumps(own, indent=1) + "\n")

    def pairs_at(self, source: Source, kind: str) -> list[Sample]:
        """Read a file of pairs: of a harmless and a harmful answer each where a preference among them decides."""
        read = read_preferences if self.measure == HARM_PREFERENCE else read_samples
        return read(source, kind, (self.options.get("data") or {}).get(COLUMNS))

    def on_fold(self, contestant: Contestant, folds: Sequence[Sequence[Sample]], fold: int) -> Trial:
        """Give a contestant's run that is measured on a fold, and trained on all others."""
        others = [sample for place, of_fold in enumerate(folds) if place != fold for sample in of_fold]
        where = f"part {fold + 1} of {len(folds)}"
        return self.run_on(contestant, self.to / f"fold-{fold + 1}", others, folds[fold], where)

    def run_on(
        self,
        contestant: Contestant,
        folder: Path,
        seeds: Sequence[Sample],
        items: Sequence[Sample],
        where: str,
        options: Options = DECIDING,
    ) -> Trial:
        """Give a run on these pairs and items, whose files are written into the folder where they are missing."""
        pairs, held_out = folder / SEEDS, folder / HELD_OUT
        for path, rows in ((pairs, rows_of(seeds, "answer_nll")), (held_out, rows_of(items, self.measure))):
            if rows and not path.exists():
                write_rows(path, rows)
        common = merge(options, self.options)
        common["data"] = {name: value for name, value in (common.get("data") or {}).items() if name != COLUMNS}
        config = configuration(
            contestant,
            merge(common, {"model": {"name": self.model}}),
            pairs,
            folder / contestant.name,
            self.seed,
            longest_of(seeds),
            held_out if items and self.measure != HARM_PREFERENCE else None,
            [evaluation_of(contestant, held_out, self.measure)] if items else [],
        )
        return Trial(contestant, config, len(seeds), len(items), where)


def longest_of(seeds: Sequence[Sample]) -> tuple[int, int]:
    """Give the bytes of the longest question and of the longest answer."""
    return max(len(s.question.encode()) for s in seeds), max(len(s.answer.encode()) for s in seeds)
