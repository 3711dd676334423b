"""A finished run, for whoever uses its model: options, samples, which of them were trained on, figures."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import Timeout

from isara_pl.errors import InputError
from isara_pl.growth.samples import Sample, seeds_hash
from isara_pl.results import metrics
from isara_pl.results.run import CONFIG, Run
from isara_pl.run.files import POOL
from isara_pl.run.folder import LOCK, run_lock
from isara_pl.run.notices import rank_zero_warn

T = TypeVar("T")


class RunOptions:
    """Every option of a run, by its name on the command line.

    Args:
        path: The run's config.yaml, for errors.
        values: What it holds, in groups.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self._values = values

    def shown(self, name: str) -> str:
        """Give an option as text; `null` where it has no value."""
        value = self._find(name)
        return "null" if value is None else str(value)

    def get(self, name: str, kind: type[T]) -> T:
        """Give an option's value; anything but this kind, such as nothing, is an InputError."""
        value = self._find(name)
        if not isinstance(value, kind):
            raise InputError(
                f"{self.path}: `{name}` is {value!r}, but must be {kind.__name__}. The file is damaged, or not of a "
                "`fit` of this version: restore it from a copy"
            )
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Give the value of an option that has few; any other is an InputError."""
        value = self.get(name, str)
        if value not in allowed:
            raise InputError(
                f"{self.path}: `{name}` is {value!r}; allowed: {', '.join(allowed)}. Restore it from a copy"
            )
        return value

    def _find(self, name: str) -> Any:
        value: Any = self._values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


ADAPTER = "adapter"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

Figures = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class FinishedRun:
    """A run that left an adapter.

    Attributes:
        folder: The run folder.
        options: Its options.
        samples: Seeds and accepted samples, in the order of the pool.
        trained_on: Ids of the samples that the adapter was trained on.
        rejected: How many candidates each filter took, the most first.
        figures: The rows of metrics.csv by outer epoch, up to the adapter's, without empty figures; 0 is the
            pretrained model.
        outer_epoch: The one that the adapter is of; None where it is of no row of metrics.csv.
    """

    folder: Path
    options: RunOptions
    samples: Sequence[Sample]
    trained_on: frozenset[str]
    rejected: Mapping[str, int]
    figures: Figures
    outer_epoch: int | None

    @property
    def seeds(self) -> list[Sample]:
        """The given pairs."""
        return [sample for sample in self.samples if sample.outer_epoch == 0]

    @property
    def seeds_hash(self) -> str:
        """The hash of the seeds, as it stands in conditions.json and evaluation/."""
        return seeds_hash(self.seeds)


@contextmanager
def at_rest(folder: Path) -> Iterator[None]:
    """Keep every run from writing into a folder inside the block.

    Raises:
        InputError: If a run is writing there.
    """
    lock = run_lock(folder)
    try:
        if (folder / LOCK).exists():  # else nothing is put there
            lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"a process is writing into {folder} (it holds {folder / LOCK}). Wait for its end, or stop it"
        ) from None
    except OSError:  # read-only, so that no run can write there either, or without locks
        pass
    try:
        yield
    finally:
        lock.release()


def refuse_unfinished(folder: Path) -> None:
    """Refuse what is not the folder of a run with an adapter.

    Raises:
        InputError: If something that every such run leaves behind is missing.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no {CONFIG}, so no `fit` was run there. Give the --run_dir of a finished `fit`")
    if not (folder / ADAPTER).is_dir():
        raise InputError(
            f"{folder}: no {ADAPTER}/, so there is no trained model: the run did not finish its first outer epoch, or "
            "α ended it there. Go on with it (--ckpt_path last), or give another run"
        )
    for file in (*(f"{ADAPTER}/{name}" for name in ADAPTER_FILES), POOL, metrics.FILE):
        if not (folder / file).is_file():
            raise InputError(f"{folder}: {file} is missing. Restore it from a copy, or give another run")


def read_run(folder: Path) -> FinishedRun:
    """Give what an export needs of a run.

    Raises:
        InputError: If it is not one, nothing was trained in it, or a file of it is damaged.
    """
    refuse_unfinished(folder)
    run = Run(folder)
    options = RunOptions(folder / CONFIG, run.config)
    if not any(sample.outer_epoch == 0 for sample in run.samples):
        raise InputError(f"{folder / POOL}: holds no seed. Restore it from a copy")
    figures = dict(sorted(run.metrics.items()))
    trained = [outer_epoch for outer_epoch, row in figures.items() if row.get("trained_on")]
    if not trained:
        raise InputError(
            f"{folder / metrics.FILE}: says that nothing was trained, although there is an adapter. "
            "Restore it from a copy"
        )
    newest = _outer_epoch_of_adapter(folder, trained[-1])
    trained = [outer_epoch for outer_epoch in trained if newest is None or outer_epoch <= newest]
    figures = {outer_epoch: row for outer_epoch, row in figures.items() if outer_epoch <= (newest or 0)}
    if options.choice("model.start_from", ("latest", "base")) == "base":
        trained = trained[-1:]  # each outer epoch began with a fresh adapter
    newest_only = options.choice("data.train_on", ("all", "newest")) == "newest"
    trained_on = frozenset(s.id for s in run.samples if _is_trained_on(s.outer_epoch, trained, newest_only))
    rejected = Counter(entry.filter for entry in run.rejected)
    return FinishedRun(folder, options, run.samples, trained_on, dict(rejected.most_common()), figures, newest)


def _outer_epoch_of_adapter(folder: Path, newest: int) -> int | None:
    """Give the outer epoch that the adapter is of: a run that was killed may have the figures of a newer one.

    None where the adapter is of no row of metrics.csv, so that no figure of a trained model is its own.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # takes seconds, with torch

    from isara_pl.run.checkpoints import weights_hash

    measured = metrics.read_weights(folder / metrics.FILE)
    if newest not in measured:  # written by a version that did not name them
        return newest
    try:
        weights = weights_hash(load_file(folder / ADAPTER / "adapter_model.safetensors"))
    except SafetensorError:
        return None  # damaged, which is told where it is exported
    found = [outer_epoch for outer_epoch, name in measured.items() if name == weights]
    if not found:
        rank_zero_warn(
            f"{folder / ADAPTER}: its weights ({weights}) are those of no row of {metrics.FILE}, so that the cards "
            "show no figure of a trained model"
        )
    return max(found, default=None)


def _is_trained_on(of: int, trained: Sequence[int], newest_only: bool) -> bool:
    """Whether one of the outer epochs that the adapter was trained in had the samples of another among its own."""
    return any(of in (0, outer_epoch) if newest_only else of <= outer_epoch for outer_epoch in trained)
