"""A run's models measured by a harness: into the run folder, and as a table."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from isara_pl.errors import InputError, printable
from isara_pl.export.finished_run import FinishedRun, at_rest, read_run
from isara_pl.export.merged_model import NF4, PlainModel, is_quantised, merged_model, pretrained_model
from isara_pl.harnesses.scores import Harness, Scored
from isara_pl.models.loading import quieten
from isara_pl.results import metrics
from isara_pl.results.items import FOLDER, write_results
from isara_pl.results.statistics import pair_units
from isara_pl.run.memory import is_out_of_memory

_RESAMPLES = 10_000


def measure_run(folder: Path, harness: Harness, trained_only: bool) -> None:
    """Measure a run's trained and pretrained model, write what was found into `evaluation/`, and say it in a table.

    What is written is whole: the figures of a model are, when all of them are there.

    Raises:
        InputError: If the folder is not that of a run with an adapter whose outer epoch is known, if its model is not
            on this machine, or if the harness fails.
    """
    quieten()
    with at_rest(folder):
        run = read_run(folder)
        if run.outer_epoch is None:
            raise InputError(
                f"{folder}: the weights in adapter/ are those of no row of {metrics.FILE}, so nobody knows of which "
                "outer epoch figures would be. Restore it from a copy"
            )
        if is_quantised(run.options):
            _say(NF4)
        found = {}
        for outer_epoch in [run.outer_epoch] if trained_only else [run.outer_epoch, 0]:
            _say(f"{metrics.outer_epoch_name(outer_epoch)}: loading and measuring")
            with _model(run, outer_epoch) as model:
                found[outer_epoch] = harness.measure(model)
            _write(run, outer_epoch, found[outer_epoch])
    _say("\n" + _table(found))
    _say(f"\n{folder / FOLDER}: the figures of every item, for `python -m isara_pl compare`")


@contextmanager
def _model(run: FinishedRun, outer_epoch: int) -> Iterator[PlainModel]:
    """Give a model of a run where it is measured, in float32, unless the run's own figures are in another type."""
    dtype = None if run.options.shown("model.evaluation_precision") == "trainer" else torch.float32
    try:
        if outer_epoch:
            with merged_model(run, dtype) as model:
                model.to_gpu()
                yield model
        else:
            model = pretrained_model(run, dtype)
            model.to_gpu()
            yield model
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError("the memory does not suffice for the model in float32") from error


def _write(run: FinishedRun, outer_epoch: int, found: Sequence[Scored]) -> None:
    shared: dict[str, Any] = {
        "weights": metrics.read_weights(run.folder / metrics.FILE).get(outer_epoch),
        "seeds": run.seeds_hash,
        "demonstrations": [],
        "contaminated": None,  # nobody looked
    }
    for scored in found:
        write_results(run.folder, scored.name, outer_epoch, [{**line, **shared} for line in scored.lines()])


def _table(found: dict[int, list[Scored]]) -> str:
    """Give the figures of each model, and how the trained one differs where items were measured one by one."""
    models = sorted(found)
    names = [metrics.outer_epoch_name(model) for model in models]
    compared = ["difference", "95 % interval"] if len(models) > 1 else []
    lines = [["", "figure", "items", *names, *compared]]
    for of_models in zip(*(found[model] for model in models), strict=True):
        first, last = of_models[0], of_models[-1]
        arrow = "↑" if first.higher_is_better else "↓"
        line = [
            first.task,
            f"{first.metric} {arrow}",
            str(first.count),
            *(f"{scored.value:.3f}" for scored in of_models),
        ]
        if compared:
            difference = pair_units(last.units(), first.units()).difference(_RESAMPLES, seed=0)
            interval = difference.interval if difference else "-"
            line += [f"{last.value - first.value:+.3f}", interval]
        lines.append(line)
    return metrics.aligned(lines)


def _say(text: str) -> None:
    print(printable(text), flush=True)
