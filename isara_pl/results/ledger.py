"""What a run took, by outer epoch and stage: `ledger.csv`."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from isara_pl.errors import InputError
from isara_pl.results.statistics import finite

FILE = "ledger.csv"
ALL = "all"  # the row of a whole outer epoch
TEACHING, TRAINING = "teaching", "training"
GROWING = ("growth", "embedding", "questions", "answers", "filtering", "scoring")
HOUR = 3600  # seconds


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


@dataclass(frozen=True, kw_only=True)
class LedgerRow(Usage):
    """A row of ledger.csv: what a stage of an outer epoch took, or all of them together; None does not exist.

    Attributes:
        outer_epoch: Which one; 0 is measuring the pretrained model.
        stage: Its name, or `all`.
        samples_per_second: How fast it went.
        cost: Money, in the currency of the price per hour.
        accepted: Samples that entered the pool; this and what follows is of the row `all`.
        seconds_per_accepted: Time for growing, per accepted sample.
        flops_per_accepted: Floating-point operations for growing, per accepted sample.
        cost_per_accepted: Money for growing, per accepted sample.
        flops_saved_per_query: What answering a question takes less without demonstrations in its prompt.
        break_even_queries: Queries after which the loop so far was cheaper, in FLOPs, than in-context learning with K
            demonstrations at every query.
        engine_gap: Where external servers generated, the largest difference between a log-probability of theirs and
            ours before they did.
    """

    outer_epoch: int
    stage: str
    samples_per_second: float | None = None
    cost: float | None = None
    accepted: int | None = None
    seconds_per_accepted: float | None = None
    flops_per_accepted: float | None = None
    cost_per_accepted: float | None = None
    flops_saved_per_query: float | None = None
    break_even_queries: float | None = None
    engine_gap: float | None = None


TAKEN = tuple(field.name for field in fields(Usage))
FIGURES = tuple(field.name for field in fields(LedgerRow))[len(TAKEN) + 2 :]
COLUMNS = ("outer_epoch", "stage", *TAKEN, *FIGURES)

Usages = dict[tuple[int, str], Usage]  # by outer epoch and stage


@dataclass(frozen=True)
class Gain:
    """What an outer epoch's growth brought.

    Attributes:
        accepted: Samples that entered the pool.
        flops_saved_per_query: What answering a question takes less without demonstrations in its prompt, on average
            over the accepted samples; None where that is not known.
        engine_gap: The difference between external servers and this process; None where there were none.
    """

    accepted: int
    flops_saved_per_query: float | None
    engine_gap: float | None = None


def added(usages: Usages, more: Mapping[tuple[int, str], Usage]) -> Usages:
    """Give what two times took together, one after the other."""
    return {**usages, **{key: usages.get(key, Usage()).then(usage) for key, usage in more.items()}}


def read_ledger(path: Path) -> list[LedgerRow]:
    """Read `ledger.csv`; a file that is missing has no rows.

    Raises:
        InputError: If a line is damaged. The message begins with `FILE:LINE:`.
    """
    if not path.exists():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        try:
            rows += [_read_row(values) for values in lines]
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise InputError(
                f"{path}:{lines.line_num}: damaged line ({error!r}). Restore the file from a copy, or remove it to "
                "count anew"
            ) from None
    return rows


def _read_row(values: Mapping[str, str]) -> LedgerRow:
    # the last one is younger than some ledgers
    given = {name: values.get(name) if name == "engine_gap" else values[name] for name in FIGURES if name != "accepted"}
    figures = {name: finite(float(value)) if value else None for name, value in given.items()}
    return LedgerRow(
        outer_epoch=int(values["outer_epoch"]),
        stage=values["stage"],
        wall_seconds=float(values["wall_seconds"]),
        cpu_seconds=float(values["cpu_seconds"]),
        prompt_tokens=int(values["prompt_tokens"]),
        generated_tokens=int(values["generated_tokens"]),
        flops=int(values["flops"]),
        peak_memory_bytes=int(values["peak_memory_bytes"]),
        samples=int(values["samples"] or 0),  # the row `all` has none
        accepted=int(values["accepted"]) if values["accepted"] else None,
        **figures,
    )


def taken_and_gained(rows: Sequence[LedgerRow]) -> tuple[Usages, dict[int, Gain]]:
    """Give what every stage took, and what each outer epoch brought: what `ledger_rows` made the rows of."""
    stages = [row for row in rows if row.stage != ALL]
    usages = {(row.outer_epoch, row.stage): Usage(**{name: getattr(row, name) for name in TAKEN}) for row in stages}
    gains = {
        row.outer_epoch: Gain(row.accepted, row.flops_saved_per_query, row.engine_gap)
        for row in rows
        if row.accepted is not None
    }
    return usages, gains


def ledger_rows(usages: Usages, gains: Mapping[int, Gain], price_per_hour: float | None) -> list[LedgerRow]:
    """Give the rows of the ledger: each stage of each outer epoch, then the whole outer epoch.

    An hour of the machine costs `price_per_hour` in any currency; None where that is not known.
    """
    rows = []
    flops_so_far = 0  # of growing, teaching and training: what the loop takes, not what measuring it takes
    for outer_epoch in sorted({key[0] for key in usages} | set(gains)):
        stages = {name: usage for (of, name), usage in usages.items() if of == outer_epoch}
        rows += [_row(outer_epoch, name, usage, price_per_hour) for name, usage in stages.items()]
        together, growing = Usage(), Usage()
        for name, usage in stages.items():
            together = together.then(usage)
            growing = growing.then(usage) if name in GROWING else growing
            flops_so_far += usage.flops if name in (*GROWING, TEACHING, TRAINING) else 0
        # of one stage samples are the prompts of another
        whole = _row(outer_epoch, ALL, replace(together, samples=0), price_per_hour)
        if outer_epoch in gains:
            whole = _with_gain(whole, gains[outer_epoch], growing, flops_so_far, price_per_hour)
        rows.append(whole)
    return rows


def _row(outer_epoch: int, stage: str, usage: Usage, price_per_hour: float | None) -> LedgerRow:
    return LedgerRow(
        outer_epoch=outer_epoch,
        stage=stage,
        **asdict(usage),
        samples_per_second=usage.samples / usage.wall_seconds if usage.samples and usage.wall_seconds else None,
        cost=None if price_per_hour is None else usage.wall_seconds / HOUR * price_per_hour,
    )


def _with_gain(
    row: LedgerRow, gain: Gain, growing: Usage, flops_so_far: int, price_per_hour: float | None
) -> LedgerRow:
    if gain.accepted:
        row = replace(
            row,
            seconds_per_accepted=growing.wall_seconds / gain.accepted,
            flops_per_accepted=growing.flops / gain.accepted,
            cost_per_accepted=None
            if price_per_hour is None
            else growing.wall_seconds / HOUR * price_per_hour / gain.accepted,
        )
    if gain.flops_saved_per_query:
        saved = gain.flops_saved_per_query
        row = replace(row, flops_saved_per_query=saved, break_even_queries=flops_so_far / saved)
    return replace(row, accepted=gain.accepted, engine_gap=gain.engine_gap)


def ledger_text(rows: Sequence[LedgerRow]) -> str:
    """Give rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = {name: _short(value) for name, value in asdict(row).items()}
        writer.writerow(values | {"samples": ""} if row.stage == ALL else values)
    return text.getvalue()


def _short(value: object) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.6g}" if abs(value) >= 1e6 or 0 < abs(value) < 1e-4 else str(round(value, 6))
