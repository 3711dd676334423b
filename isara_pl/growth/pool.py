"""The pool: seeds and accepted samples, with an append-only journal on disk."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from isara_pl.errors import InputError
from isara_pl.growth.samples import Sample

T = TypeVar("T")
POOL = "pool.jsonl"
REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class Verdict:
    """What a filter says of a candidate.

    Attributes:
        figure: The number that decides, e.g. the ROUGE-L or the count of words.
        reason: Why the candidate is rejected, in a few words; None accepts it.
    """

    figure: float
    reason: str | None = None


@dataclass(frozen=True)
class Rejected:
    """A rejected candidate, as it stands in `rejected.jsonl`.

    Attributes:
        candidate: The candidate.
        filter: Class name of the filter that rejected it.
        verdict: The filter's figure and words.
    """

    candidate: Sample
    filter: str
    verdict: Verdict

    def to_json(self) -> str:
        """Give the rejected candidate as one line of JSON."""
        return json.dumps({**asdict(self.candidate), "filter": self.filter, **asdict(self.verdict)}, ensure_ascii=False)


class SamplePool:
    """Seeds and accepted samples in the order of their acceptance; the record of every candidate.

    With a folder, the pool is `pool.jsonl` (seeds and accepted) and `rejected.jsonl` there: both are
    only ever appended to, and `record` returns when the lines are on disk. Opened on a folder that
    already holds them, the pool continues from what they say.

    Args:
        seeds: The given pairs.
        folder: Where the journal lies; None keeps the pool in memory.

    Raises:
        InputError: If the journal in the folder was grown from other seeds, or has a damaged line.
    """

    def __init__(self, seeds: Sequence[Sample], folder: Path | None = None) -> None:
        self.samples: list[Sample] = list(seeds)
        self.folder = folder
        # outer epoch -> candidate ids that a filter took, by filter
        self._rejected: dict[int, dict[str, str]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._read_journal(folder, seeds)

    def __len__(self) -> int:
        return len(self.samples)

    def up_to(self, outer_epoch: int) -> list[Sample]:
        """Give the samples of all outer epochs up to this one, the seeds (0) included."""
        return [sample for sample in self.samples if sample.outer_epoch <= outer_epoch]

    def accepted(self, outer_epoch: int) -> list[Sample]:
        """Give the samples that an outer epoch added."""
        return [sample for sample in self.samples if sample.outer_epoch == outer_epoch]

    def rejected(self, outer_epoch: int) -> Counter[str]:
        """Give how many candidates of an outer epoch each filter took."""
        return Counter(self._rejected.get(outer_epoch, {}).values())

    def judged(self, outer_epoch: int) -> set[str]:
        """Give the ids of all candidates of an outer epoch that were judged, either way."""
        return {sample.id for sample in self.accepted(outer_epoch)} | set(self._rejected.get(outer_epoch, {}))

    def add(self, sample: Sample) -> None:
        """Put an accepted candidate in the pool; `record` must follow before anything relies on it."""
        self.samples.append(sample)

    def record(self, accepted: Sequence[Sample], rejected: Sequence[Rejected]) -> None:
        """Write a judged batch to disk and remember what was rejected.

        Args:
            accepted: Samples of this batch, already in the pool by `add`.
            rejected: The other candidates of the batch.
        """
        for entry in rejected:
            self._rejected.setdefault(entry.candidate.outer_epoch, {})[entry.candidate.id] = entry.filter
        if self.folder is not None:
            _append(self.folder / REJECTED, [entry.to_json() for entry in rejected])
            _append(self.folder / POOL, [sample.to_json() for sample in accepted])

    def _read_journal(self, folder: Path, seeds: Sequence[Sample]) -> None:
        if not is_grown(folder):
            # no candidate was judged: whatever is there holds nothing but seeds
            (folder / POOL).unlink(missing_ok=True)
            _append(folder / POOL, [seed.to_json() for seed in seeds])
            return
        samples = list(_entries(folder / POOL, Sample.from_json))
        if [sample for sample in samples if sample.outer_epoch == 0] != list(seeds):
            raise InputError(
                f"{folder / POOL} was grown from other seeds than those given now. "
                "Give the same seeds file to continue, or another --run_dir to start anew"
            )
        self.samples = samples
        for outer_epoch, name, taken_by in _entries(folder / REJECTED, _read_rejected):
            self._rejected.setdefault(outer_epoch, {})[name] = taken_by


def is_grown(folder: Path) -> bool:
    """Whether the pool in a folder holds anything that was generated.

    Args:
        folder: The run folder; it need not exist.
    """
    # rejected.jsonl is written with the first batch, even if that rejects nothing
    return (folder / REJECTED).exists() or any(
        sample.outer_epoch > 0 for sample in _entries(folder / POOL, Sample.from_json)
    )


def _read_rejected(line: str) -> tuple[int, str, str]:
    entry = json.loads(line)
    return entry["outer_epoch"], entry["id"], entry["filter"]


def _append(path: Path, lines: Sequence[str]) -> None:
    """Append lines and return when they are on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def _entries(path: Path, read: Callable[[str], T]) -> Iterator[T]:
    """Yield the entries of a journal; a last line that a killed process left unfinished is cut off."""
    if not path.exists():
        return
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        os.truncate(path, complete)
    for number, line in enumerate(content[:complete].split(b"\n")[:-1], start=1):
        try:
            entry = read(line.decode("utf-8"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path}:{number}: damaged line ({error}). Restore the file, or start anew") from None
        yield entry
