"""What a comparison compares: methods, each with the runs of its name pooled."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isara_pl.errors import InputError
from isara_pl.results.items import Line
from isara_pl.results.run import CLAIMED, CONTROL, FITTED, OF_SEEDS, PRETRAINED, SFT_OTHER, Run


@dataclass(frozen=True)
class Entry:
    """What is compared: a method, or one of its outer epochs.

    Attributes:
        name: Its name in tables.
        method: The method's name.
        kind: What it is: the pretrained model, ICL, or one of `FITTED`.
        runs: Folders of its runs, each with its lines by evaluation.
        budget: How many candidates each outer epoch generated that it was trained in, where all its runs agree.
        recipe: All else that its runs' pools depend on but for their seeds, where all agree; empty where not known.
    """

    name: str
    method: str
    kind: str
    runs: list[tuple[Path, dict[str, list[Line]]]]
    budget: tuple[int, ...] = ()
    recipe: str = ""

    @property
    def described(self) -> str:
        """Its name, and what it is where the name does not say it."""
        return self.name if self.name == self.kind else f"{self.name} ({self.kind})"

    def lines(self, evaluation: str) -> list[Line]:
        """Give the lines of all runs in an evaluation."""
        return [line for _, lines in self.runs for line in lines.get(evaluation, [])]


def pool_runs(runs: Sequence[tuple[str, Run]], every_outer_epoch: bool) -> list[Entry]:
    """Pool the runs of each method.

    Where no run is of the pretrained model, what the fitted runs measured before training is an entry
    `pretrained`.

    Args:
        runs: The measured runs, each with the name of its method.
        every_outer_epoch: Make each outer epoch of a fitted method an entry; else take each run's last.

    Raises:
        InputError: If runs of one method are of different kinds, or have different evaluations.
    """
    kinds = _kinds([run for _, run in runs])
    entries = []
    for method in dict.fromkeys(name for name, _ in runs):
        pooled = [run for name, run in runs if name == method]
        _check_alike(method, pooled, kinds)
        kind, trained = kinds[pooled[0]], sorted(set().union(*(run.trained_outer_epochs for run in pooled)))
        if every_outer_epoch and trained:
            for outer_epoch in trained:
                having = [run for run in pooled if outer_epoch in run.trained_outer_epochs]
                lines = [(run.folder, run.at(outer_epoch)) for run in having]
                grown = _budget(having, outer_epoch), _recipe(having)
                entries.append(Entry(f"{method}, outer epoch {outer_epoch}", method, kind, lines, *grown))
        else:
            grown = _budget(pooled, None), _recipe(pooled)
            entries.append(Entry(method, method, kind, [(run.folder, run.last()) for run in pooled], *grown))
    if all(entry.kind != PRETRAINED and entry.method != PRETRAINED for entry in entries):
        before = [(run.folder, _without_demonstrations(run.at(0))) for _, run in runs if run.kind in FITTED]
        before = [(path, lines) for path, lines in before if lines]
        if before:
            entries.insert(0, Entry(PRETRAINED, PRETRAINED, PRETRAINED, before))
    return entries


def equal_budgets(entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Give every loop of several outer epochs with the same one of a single outer epoch, of as many candidates."""
    return [
        (iterative, one_shot)
        for iterative in entries
        for one_shot in entries
        if len(one_shot.budget) == 1 < len(iterative.budget)
        and one_shot.budget[0] == sum(iterative.budget)
        and iterative.recipe == one_shot.recipe != ""
    ]


def _budget(runs: Sequence[Run], outer_epoch: int | None) -> tuple[int, ...]:
    """Give the candidates of each outer epoch up to one, or to each run's last; nothing where that is not known."""
    found = set()
    for run in runs:
        last = outer_epoch or max(run.trained_outer_epochs, default=0)
        try:
            found.add(tuple(int(run.metrics[number]["candidates"]) for number in range(1, last + 1)))
        except (InputError, KeyError):  # a damaged file, or a run that grew nothing
            return ()
    return found.pop() if len(found) == 1 else ()


def _recipe(runs: Sequence[Run]) -> str:
    own = ("data.candidates_per_outer_epoch", "data.seeds", "seed_everything")
    plain = [{name: value for name, value in run.conditions.items() if name not in own} for run in runs]
    found = {json.dumps(options, sort_keys=True) for options in plain if options}
    return found.pop() if len(found) == 1 else ""


def _kinds(runs: Sequence[Run]) -> dict[Run, str]:
    """Tell SFT on the seeds of the other methods from SFT on pairs that they never had, such as more human ones."""
    seeds = {run: {line.seeds for lines in run.items.values() for line in lines} for run in runs}
    of_loops = set().union(*(seeds[run] for run in runs if run.kind in (*CLAIMED, CONTROL)))
    on_others = {run for run in runs if run.kind in OF_SEEDS and of_loops and not seeds[run] & of_loops}
    return {run: SFT_OTHER if run in on_others else run.kind for run in runs}


def _check_alike(method: str, runs: Sequence[Run], kinds: Mapping[Run, str]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if kinds[run] != kinds[first]:
            raise InputError(
                f"compare: {first.folder} is {kinds[first]} and {run.folder} is {kinds[run]}, but both are named "
                f"{method!r}. Name them apart: NAME=RUN"
            )
        if set(run.items) != set(first.items):
            raise InputError(
                f"compare: the runs of {method!r} have different evaluations: {first.folder} has "
                f"{sorted(first.items)}, {run.folder} has {sorted(run.items)}. Evaluate both alike, or name them apart"
            )


def _without_demonstrations(evaluations: Mapping[str, list[Line]]) -> dict[str, list[Line]]:
    plain = {name: [line for line in lines if not line.demonstrated] for name, lines in evaluations.items()}
    return {name: lines for name, lines in plain.items() if lines}
