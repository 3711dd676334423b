"""What a run took, by outer epoch and stage: `ledger.csv`."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError
from isara_pl.run.stages import Stage

FILE = "ledger.csv"
ALL = "all"  # the row of a whole outer epoch
TEACHING, TRAINING = "teaching", "training"
GROWING = ("growth", "embedding", "questions", "answers", "filtering")
TAKEN = (
    *("wall_seconds", "cpu_seconds", "prompt_tokens", "generated_tokens", "flops"),
    *("peak_memory_bytes", "samples"),
)
BROUGHT = (
    *("accepted", "seconds_per_accepted", "flops_per_accepted", "cost_per_accepted"),
    *("flops_saved_per_query", "break_even_queries"),
)
COLUMNS = ("outer_epoch", "stage", *TAKEN, "samples_per_second", "cost", *BROUGHT)
HOUR = 3600  # seconds

Row = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """What a stage of an outer epoch took; the names are those of the columns.

    Attributes:
        wall_seconds: Time that passed.
        cpu_seconds: Time that processors computed, over all threads and processes.
        prompt_tokens: Tokens of the prompts, or of the pairs that were trained on, padding included.
        generated_tokens: Tokens that were generated.
        flops: Floating-point operations, as of `isara_pl.models.flops`.
        peak_memory_bytes: Most memory that a process used: of the GPU where there is one.
        samples: What it went through: prompts, texts, candidates, pairs or items.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    flops: int = 0
    peak_memory_bytes: int = 0
    samples: int = 0

    @classmethod
    def of(cls, stage: Stage) -> "Usage":
        """Give what a finished stage took."""
        return cls(
            wall_seconds=stage.wall_seconds,
            cpu_seconds=stage.cpu_seconds,
            prompt_tokens=stage.prompt_tokens,
            generated_tokens=stage.generated_tokens,
            flops=stage.flops,
            peak_memory_bytes=stage.peak_memory,
            samples=stage.done,
        )

    def then(self, later: "Usage") -> "Usage":
        """Give what this and something later took together."""
        return self._with(later, self.wall_seconds + later.wall_seconds)

    def beside(self, other: "Usage") -> "Usage":
        """Give what this and the same stage in another process took together."""
        return self._with(other, max(self.wall_seconds, other.wall_seconds))

    def _with(self, other: "Usage", wall_seconds: float) -> "Usage":
        return Usage(
            wall_seconds=wall_seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            generated_tokens=self.generated_tokens + other.generated_tokens,
            flops=self.flops + other.flops,
            peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes),
            samples=self.samples + other.samples,
        )


@dataclass(frozen=True)
class Spent:
    """A row of ledger.csv: what a stage of an outer epoch cost. The names are those of its columns."""

    outer_epoch: int
    stage: str
    wall_seconds: float
    cpu_seconds: float
    prompt_tokens: int
    generated_tokens: int
    flops: float
    peak_memory_bytes: int
    samples: int
    cost: float | None


@dataclass(frozen=True)
class Totals:
    """What an outer epoch cost altogether: the row `all` of ledger.csv.

    Attributes:
        outer_epoch: Which one.
        wall_seconds: Time.
        cost: Money, in the currency of the price per hour; None without a price.
        seconds_per_accepted: Time for growing, per accepted sample.
        cost_per_accepted: Money for growing, per accepted sample.
        break_even_queries: Queries after which the loop so far was cheaper, in FLOPs, than in-context learning with K
            demonstrations at every query.
    """

    outer_epoch: int
    wall_seconds: float
    cost: float | None
    seconds_per_accepted: float | None
    cost_per_accepted: float | None
    break_even_queries: float | None


Usages = dict[tuple[int, str], Usage]  # by outer epoch and stage


@dataclass(frozen=True)
class Gain:
    """What an outer epoch's growth brought.

    Attributes:
        accepted: Samples that entered the pool.
        flops_saved_per_query: What answering a question takes less without demonstrations in its prompt, on average
            over the accepted samples; None where that is not known.
    """

    accepted: int
    flops_saved_per_query: float | None


def added(usages: Usages, more: Mapping[tuple[int, str], Usage]) -> Usages:
    """Give what two times took together, one after the other.

    Args:
        usages: What was taken first.
        more: What was taken later.
    """
    return {**usages, **{key: usages.get(key, Usage()).then(usage) for key, usage in more.items()}}


def read_ledger(path: Path) -> tuple[Usages, dict[int, Gain]]:
    """Read `ledger.csv`.

    Args:
        path: The file; it need not exist.

    Returns:
        What every stage took, and what each outer epoch brought.

    Raises:
        InputError: If a line is damaged.
    """
    usages: Usages = {}
    gains: dict[int, Gain] = {}
    if not path.exists():
        return usages, gains
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                outer_epoch = int(row["outer_epoch"])
                if row["stage"] != ALL:
                    usages[outer_epoch, row["stage"]] = Usage(
                        **{field.name: _number(field.type, row[field.name]) for field in fields(Usage)}
                    )
                elif row["accepted"]:
                    saved = row["flops_saved_per_query"]
                    gains[outer_epoch] = Gain(int(row["accepted"]), float(saved) if saved else None)
            except (KeyError, ValueError, TypeError) as error:
                raise InputError(
                    f"{path}:{line}: damaged line ({error!r}). Restore the file from a copy, or remove it to count anew"
                ) from None
    return usages, gains


def _number(kind: Any, text: str) -> Any:
    return float(text) if kind is float else int(text)


def ledger_rows(usages: Usages, gains: Mapping[int, Gain], price_per_hour: float | None) -> list[Row]:
    """Give the rows of the ledger: each stage of each outer epoch, then the whole outer epoch.

    Args:
        usages: What every stage took.
        gains: What each outer epoch brought.
        price_per_hour: What an hour of the machine costs, in any currency; None where that is not known.

    Returns:
        Values by column; what does not exist is missing.
    """
    rows: list[Row] = []
    flops_so_far = 0  # of growing, teaching and training: what the loop takes, not what measuring it takes
    for outer_epoch in sorted({key[0] for key in usages} | set(gains)):
        stages = {name: usage for (of, name), usage in usages.items() if of == outer_epoch}
        rows += [_row(outer_epoch, name, usage, price_per_hour) for name, usage in stages.items()]
        together, growing = Usage(), Usage()
        for name, usage in stages.items():
            together = together.then(usage)
            growing = growing.then(usage) if name in GROWING else growing
            flops_so_far += usage.flops if name in (*GROWING, TEACHING, TRAINING) else 0
        row = _row(outer_epoch, ALL, together, price_per_hour)
        del row["samples"]  # of one stage they are the prompts of another
        row.pop("samples_per_second", None)
        if outer_epoch in gains:
            row |= _brought(gains[outer_epoch], growing, flops_so_far, price_per_hour)
        rows.append(row)
    return rows


def _row(outer_epoch: int, stage: str, usage: Usage, price_per_hour: float | None) -> Row:
    row: Row = {"outer_epoch": outer_epoch, "stage": stage}
    row |= {field.name: getattr(usage, field.name) for field in fields(usage)}
    if usage.samples and usage.wall_seconds:
        row["samples_per_second"] = usage.samples / usage.wall_seconds
    if price_per_hour is not None:
        row["cost"] = usage.wall_seconds / HOUR * price_per_hour
    return row


def _brought(gain: Gain, growing: Usage, flops_so_far: int, price_per_hour: float | None) -> Row:
    row: Row = {"accepted": gain.accepted}
    if gain.accepted:
        row["seconds_per_accepted"] = growing.wall_seconds / gain.accepted
        row["flops_per_accepted"] = growing.flops / gain.accepted
        if price_per_hour is not None:
            row["cost_per_accepted"] = growing.wall_seconds / HOUR * price_per_hour / gain.accepted
    if gain.flops_saved_per_query:
        row["flops_saved_per_query"] = gain.flops_saved_per_query
        row["break_even_queries"] = flops_so_far / gain.flops_saved_per_query
    return row


def ledger_text(rows: list[Row]) -> str:
    """Give rows as CSV.

    Args:
        rows: Those of `ledger_rows`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) and abs(value) >= 1e6 else str(_rounded(value))


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
