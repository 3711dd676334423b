"""The pool: seeds and accepted samples, with an append-only journal on disk; what filters say of candidates."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from isara_pl.errors import InputError
from isara_pl.growth.samples import Sample
from isara_pl.run.files import POOL, REJECTED, append, entries


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
    """A rejected candidate, as it stands in `rejected.jsonl`."""

    candidate: Sample
    filter: str  # class name of the filter that rejected it
    verdict: Verdict

    def to_json(self) -> str:
        """Give the rejected candidate as one line of JSON."""
        return json.dumps({**asdict(self.candidate), "filter": self.filter, **asdict(self.verdict)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Rejected":
        """Read a line that `to_json` wrote."""
        values = json.loads(line)
        taken_by, reason, figure = values.pop("filter"), values.pop("reason"), values.pop("figure")
        if not isinstance(taken_by, str) or not isinstance(reason, str):
            raise TypeError("`filter` and `reason` must be text")
        return cls(Sample.of(values), taken_by, Verdict(figure, reason))


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

    def scaling(self, outer_epoch: int) -> float:
        """Give all samples up to an outer epoch ÷ seeds: by how much the data have grown."""
        return len(self.up_to(outer_epoch)) / len(self.up_to(0))

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

        The accepted are in the pool already, by `add`.
        """
        self._remember(rejected)
        if self.folder is not None:
            append(self.folder / REJECTED, [entry.to_json() for entry in rejected])
            append(self.folder / POOL, [sample.to_json() for sample in accepted])

    def known(self) -> dict[str, int | str]:
        """Give what a checkpoint remembers of the pool, to be held against it by `lacks`."""
        return {
            "pool": len(self.samples),
            "rejected": self._rejected_count,
            "digest": self._digest(len(self.samples)),
        }

    def lacks(self, known: Mapping[str, int | str]) -> str | None:
        """Say what a pool that was `known` before had and this one lacks; None if it has all of it, or more."""
        for name, file, found in (("pool", POOL, len(self.samples)), ("rejected", REJECTED, self._rejected_count)):
            if found < int(known[name]):
                return f"{file} holds {found} entries, and held {known[name]} then"
        if self._digest(int(known["pool"])) != known["digest"]:
            return f"the first {known['pool']} samples of {POOL} are not those that it held then"
        return None

    def _remember(self, rejected: Sequence[Rejected]) -> None:
        for entry in rejected:
            self._rejected.setdefault(entry.candidate.outer_epoch, {})[entry.candidate.id] = entry.filter

    @property
    def _rejected_count(self) -> int:
        return sum(map(len, self._rejected.values()))

    def _digest(self, count: int) -> str:
        """Hash the first samples."""
        digest = hashlib.sha256()
        for sample in self.samples[:count]:
            digest.update(json.dumps([sample.id, sample.question, sample.answer]).encode())
        return digest.hexdigest()

    def _read_journal(self, folder: Path, seeds: Sequence[Sample]) -> None:
        if not is_grown(folder):
            # no candidate was judged: whatever is there holds nothing but seeds
            (folder / POOL).unlink(missing_ok=True)
            append(folder / POOL, [seed.to_json() for seed in seeds])
            return
        samples = list(entries(folder / POOL, Sample.from_json))
        taken = list(entries(folder / REJECTED, Rejected.from_json))
        _refuse_twice(folder / POOL, [sample.id for sample in samples])
        _refuse_twice(folder / REJECTED, [entry.candidate.id for entry in taken])
        if [sample for sample in samples if sample.outer_epoch == 0] != list(seeds):
            raise InputError(
                f"{folder / POOL} was grown from other seeds than those given now. "
                "Give the same seeds file to continue, or another --run_dir to start anew"
            )
        self.samples = samples
        self._remember(taken)


class Empty:
    """Rejects candidates without a question or without an answer, such as those of a model that ends at once."""

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Judge by the characters of the shorter of the two; the figure is their number."""
        characters = min(len(candidate.question.strip()), len(candidate.answer.strip()))
        return Verdict(characters, None if characters else "no question, or no answer")


class NoRoom:
    """Rejects candidates whose question leaves no room for an answer in the model's window; they have none."""

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        """Reject; the figure is the question's characters."""
        return Verdict(len(candidate.question), "question leaves no room for an answer in the model's window")


def is_grown(folder: Path) -> bool:
    """Whether the pool in a folder holds anything that was generated. The folder need not exist."""
    # rejected.jsonl is written with the first batch, even if that rejects nothing
    return (folder / REJECTED).exists() or any(
        sample.outer_epoch > 0 for sample in entries(folder / POOL, Sample.from_json)
    )


def seeds_of(folder: Path) -> list[Sample]:
    """Give the seeds that the pool in a folder was grown from."""
    return [sample for sample in entries(folder / POOL, Sample.from_json) if sample.outer_epoch == 0]


def _refuse_twice(path: Path, ids: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for line, name in enumerate(ids, start=1):
        if first.setdefault(name, line) != line:
            raise InputError(
                f"{path}:{line}: {name} stands in line {first[name]} already, as if two runs had written here. "
                "Restore the file from a copy, or start anew in another folder"
            )
