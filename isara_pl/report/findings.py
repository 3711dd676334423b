"""The headline of a report: why a run stopped, what it cost, what to look at first; and the options of the run."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from isara_pl.growth.pool import Rejected
from isara_pl.models.sources import PACKAGE_SCHEME
from isara_pl.report.contents import Finding, GrownOuterEpoch, counted, duration, listed, quoted, to_accept_more
from isara_pl.report.suspicious import Look
from isara_pl.results.ledger import ALL, LedgerRow
from isara_pl.results.metrics import FILE as METRICS
from isara_pl.results.run import Run
from isara_pl.results.statistics import finite
from isara_pl.run.conditions import CONTENT
from isara_pl.run.files import POOL

# what the pool does not depend on, but a reader asks for; the other options are those of conditions.json
ALSO = ("data.outer_epochs", "alpha_stopping.alpha", "data.held_out")
FIRST = ("model.name", "data.seeds", "data.held_out", "data.encoder")
A_PLACE = re.compile(r"~|\.{0,2}/|[A-Za-z]:[\\/]|\\\\")
IN_QUOTES = re.compile(r"'([^']*)'")


def facts(options: Mapping[str, Any], conditions: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give the options that the pool depends on, some others and versions, by their names."""
    also = {name: options[name] for name in ALSO if isinstance(options.get(name), str | int | float)}
    known = {**{name: value for name, value in conditions.items() if not name.startswith(CONTENT)}, **also}
    names = [*(name for name in FIRST if name in known), *(name for name in known if name not in FIRST)]
    return [*((name, shown(known[name])) for name in names), ("isara_pl that wrote this report", version("isara_pl"))]


def about(run: Run) -> list[tuple[str, str]]:
    """Give when a run was, its model, and how much it was given and measured on."""
    written = [path.stat().st_mtime for name in (METRICS, POOL) if (path := run.folder / name).exists()]
    seeds = sum(sample.outer_epoch == 0 for sample in run.samples)
    items = max((len({line.question for line in lines}) for lines in run.items.values()), default=0)
    told = [
        ("Date", datetime.fromtimestamp(max(written)).strftime("%Y-%m-%d") if written else ""),
        ("Model", shown(run.options.get("model.name") or "")),
        ("Given pairs (seeds)", _with_name(seeds, run.options.get("data.seeds"))),
        ("Held-out questions", _with_name(items, run.options.get("data.held_out")) if items else "none measured"),
    ]
    return [(name, value) for name, value in told if value]


def _with_name(number: int, file: Any) -> str:
    return f"{number:,} ({shown(file)})" if isinstance(file, str) else f"{number:,}"


def without_place(name: str) -> str:
    """Give a file or folder by its last name only; hub ids and `package://…` are as they are."""
    if name.startswith(PACKAGE_SCHEME) or not (A_PLACE.match(name) or name.count("/") > 1):
        return name
    return PureWindowsPath(PurePosixPath(name).name).name


def shown(value: Any) -> str:
    """Give an option's value, of plain numbers, strings and lists, in words without the places of files."""
    if isinstance(value, list):
        return ", ".join(_described(each) if isinstance(each, str) else shown(each) for each in value) or "none"
    if isinstance(value, str):
        return without_place(value)
    return "none" if value is None else str(value)


def _described(text: str) -> str:
    """Take the places out of an object's description, such as `NoSuch(words='lists/of/words.txt')`."""
    if "(" not in text:
        return without_place(text)
    return IN_QUOTES.sub(lambda found: f"'{without_place(found[1])}'", text)


STOPPED, COST, LOOK = "Why did it stop?", "What did it cost?", "What to look at first"
GO_ON = "To go on: the same command with --ckpt_path last."


def as_text(findings: Sequence[Finding]) -> str:
    """Give findings as plain text, as it is in the files: whoever prints it escapes what steers a terminal."""
    lines = []
    for found in findings:
        colon = "" if found.question.endswith("?") else ":"
        lines += [f"{found.question}{colon} {found.answer}", *(f"  {detail}" for detail in found.details)]
    return "\n".join(lines)


def stopped(run: Run, grown: Sequence[GrownOuterEpoch]) -> Finding:
    """Say why a run stopped, or that it did not."""
    alpha, planned = finite(run.options.get("alpha_stopping.alpha")), run.options.get("data.outer_epochs")
    trained = [number for number in {*run.metrics, *(one.outer_epoch for one in grown)} if run.trained(number)]
    done = max(trained, default=0)
    if not grown and run.options.get("data.candidates_per_outer_epoch") == 0:
        return _seeds_alone(run, done)
    last = grown[-1] if grown else None
    if last and alpha is not None and _exhausted(run, last, alpha):
        return _by_alpha(last, alpha)
    if not isinstance(planned, int):
        answer = f"Nothing shows it: there is no config.yaml with data.outer_epochs. Outer epochs trained: {done}."
        return Finding(STOPPED, answer, [], "unsure")
    if done >= planned:
        all_done = f"All {planned} outer epochs were done" if planned > 1 else "Its one outer epoch was done"
        lowest = min((one.novelty for one in grown if one.novelty is not None), default=None)
        return Finding(STOPPED, f"{all_done}{_against_alpha(lowest, alpha)}.", [], "neutral")
    begun = (
        [f"In outer epoch {last.outer_epoch}, {last.accepted:,} of {last.candidates:,} candidates are accepted so far."]
        if last and last.outer_epoch > done
        else []
    )
    return Finding(
        STOPPED,
        f"It is not finished: {done} of {counted(planned, 'outer epoch')} trained. It is still running, or something "
        "other than the α rule ended it.",
        [*begun, GO_ON],
        "unsure",
    )


def _against_alpha(lowest: float | None, alpha: float | None) -> str:
    if lowest is None or alpha is None:
        return ""
    if alpha == 0:
        return "; the α rule was off (α = 0)"
    if lowest < alpha:
        return f"; the novelty was down to {lowest:.3f}, but α = {alpha:g} was not in force then"
    return f"; the novelty, at least {lowest:.3f}, never fell below α = {alpha:g}"


def _exhausted(run: Run, last: GrownOuterEpoch, alpha: float) -> bool:
    """Whether the α rule ended the run in its last outer epoch, which is then grown to its end but not trained on."""
    wanted = run.options.get("data.candidates_per_outer_epoch")
    whole = "candidates" in run.metrics.get(last.outer_epoch, {}) or last.candidates == wanted
    return whole and not last.trained and last.novelty is not None and last.novelty < alpha


def _by_alpha(last: GrownOuterEpoch, alpha: float) -> Finding:
    few = f"{last.accepted:,} of {counted(last.candidates, 'candidate')} accepted"
    below = f"a novelty of {last.novelty:.3f}, which is below α = {alpha:g}"
    taken = [f"{name} {count:,}" for name, count in Counter(last.taken).most_common() if count]
    by = [f"The others were rejected by {listed(taken)}."] if taken else []
    if last.outer_epoch == 1:
        change = f"To change that: {to_accept_more(last.taken)}."
        answer = f"The α rule ended it in the very first outer epoch, so nothing was trained: {few}, {below}."
        return Finding(STOPPED, answer, [*by, change], "bad")
    kept = f"The samples of outer epoch {last.outer_epoch} are in the pool, but nothing was trained on them."
    answer = f"The model had little new to say in outer epoch {last.outer_epoch}: {few}, {below}."
    return Finding(STOPPED, answer, [kept, *by], "neutral")


def _seeds_alone(run: Run, done: int) -> Finding:
    seeds = counted(len(run.samples), "seed")
    if not done:
        return Finding(STOPPED, f"It is not finished: training on the {seeds} alone has no end yet.", [GO_ON], "unsure")
    kept = ", and went back to the weights of its best epoch" if run.conditions.get("best_epoch") is True else ""
    answer = f"It trained on the {seeds} alone, to the end{kept}; nothing was to be generated."
    return Finding(STOPPED, answer, [], "neutral")


def cost(run: Run, grown: Sequence[GrownOuterEpoch]) -> Finding:
    """Say what a run took; of the time, metrics.csv where there is no ledger."""
    totals = [row for row in run.ledger if row.stage == ALL]
    seconds = sum(total.wall_seconds for total in totals)
    seconds = seconds or sum(finite(row.get("seconds")) or 0.0 for row in run.metrics.values())
    if not seconds:
        return Finding(COST, "Nothing is known: neither ledger.csv nor metrics.csv has a time.", [], "unsure")
    accepted = {one.outer_epoch: one.accepted for one in grown}
    per_accepted = _mean({total.outer_epoch: total.seconds_per_accepted for total in totals}, accepted)
    each = f", {duration(per_accepted)} of growing for each" if per_accepted is not None else ""
    samples = f" for {counted(sum(accepted.values()), 'accepted sample')}{each}" if accepted else ""
    prices = [total.cost for total in totals if total.cost is not None]
    price_each = _mean({total.outer_epoch: total.cost_per_accepted for total in totals}, accepted)
    price = f" It cost {sum(prices):.4g} at the given price of an hour" if prices else ""
    price += f", {price_each:.3g} of growing for each accepted sample" if prices and price_each is not None else ""
    answer = f"{duration(seconds)}{samples}.{price}{'.' if price else ''}"
    return Finding(COST, answer, _parts(run.ledger), "neutral")


def _mean(figures: Mapping[int, float | None], weights: Mapping[int, int]) -> float | None:
    """Give the mean over accepted samples of what each took in its outer epoch."""
    known = {number: figure for number, figure in figures.items() if figure is not None and weights.get(number)}
    count = sum(weights[number] for number in known)
    return sum(figure * weights[number] for number, figure in known.items()) / count if count else None


def _parts(rows: Sequence[LedgerRow]) -> list[str]:
    """Say where the time and the tokens went, and from when on it pays."""
    by_stage: Counter[str] = Counter()
    stages = [row for row in rows if row.stage != ALL]
    for one in stages:
        by_stage[one.stage] += one.wall_seconds  # type: ignore[assignment]  # a Counter adds floats, too
    whole = sum(by_stage.values())
    details = []
    if whole:
        shares = [f"{stage.replace('_', ' ')} {seconds / whole:.0%}" for stage, seconds in by_stage.most_common(3)]
        details.append(f"Most of the time went into {listed(shares)}.")
    generated = sum(one.generated_tokens for one in stages)
    if generated:
        details.append(f"{generated:,} tokens were generated.")
    pays = next((row.break_even_queries for row in reversed(rows) if row.break_even_queries is not None), None)
    if pays is not None:
        details.append(
            f"After {pays:,.0f} questions, growing and training took fewer FLOPs than demonstrations in the prompt of "
            "every question would have."
        )
    return details


def look_first(run: Run, look: Look) -> Finding:
    """Say which sample to look at first, where it came from, and what was rejected most."""
    counts = [f"{count:,} {kind}" for kind, count in look.counts.items()]
    details = [f"Among the accepted samples: {listed(counts)}."] if counts else []
    details += _most_rejected(run.rejected)
    if not look.worst_first:
        if run.rejected:
            return Finding(LOOK, "No candidate was accepted.", details, "bad")
        return Finding(LOOK, "Nothing was generated: the pool holds the seeds alone.", details, "neutral")
    place = look.worst_first[0]
    sample = run.samples[place]
    origins = [
        f"The {part} was written from {listed([*shown])}"
        for part, shown in (("question", sample.question_demonstrations), ("answer", sample.answer_demonstrations))
        if shown
    ]
    came = "".join(f" {origin}." for origin in origins)
    answer = (
        f"{sample.id} of outer epoch {sample.outer_epoch}, {quoted(sample.question)}, answered "
        f"{quoted(sample.answer)}: it {look.reasons[place][0]}.{came}"
    )
    return Finding(LOOK, answer, details, "unsure" if counts else "neutral")


def _most_rejected(rejected: Sequence[Rejected]) -> list[str]:
    """Say which filter took most, with its last candidate and reason."""
    if not rejected:
        return []
    taken = Counter(entry.filter for entry in rejected)
    name, count = taken.most_common(1)[0]
    example = next(entry for entry in reversed(rejected) if entry.filter == name)
    return [
        f"{name} rejected most, {count:,} of {counted(len(rejected), 'rejected candidate')}, e.g. "
        f"{example.candidate.id}, {quoted(example.candidate.question)}: {example.verdict.reason}."
    ]
