"""What can be said of the stages that are running: one line for each, for progress bars and logs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from isara_pl.results.metrics import outer_epoch_name
from isara_pl.run.stages import Stage

GROWTH = "growth"
TEXTS = ("questions", "answers")  # the stages in which a growth generates its candidates' texts


@dataclass(frozen=True)
class Opened:
    """A stage that is running.

    Attributes:
        stage: The stage.
        since: When it began, in seconds of a clock.
    """

    stage: Stage
    since: float


@dataclass
class Growing:
    """How far a growth is, beside what its stage counts.

    Attributes:
        judged_before: Candidates of the outer epoch that were judged before it began.
        accepted: Candidates of the outer epoch that were accepted so far.
        processes: How many processes split each batch.
        texts: Questions and answers that this process has generated.
        texts_of_batch: Those of the batch that is not judged yet.
    """

    judged_before: int = 0
    accepted: int = 0
    processes: int = 1
    texts: int = 0
    texts_of_batch: int = 0


@dataclass(frozen=True)
class Line:
    """What is said of a running stage.

    Attributes:
        name: What goes on.
        done: Items that it has gone through.
        total: How many it will go through; None where that is not known.
        seconds: Since it began.
        seconds_left: Until its end, as it went so far; None where nothing tells.
        note: What else there is to say; may be empty.
    """

    name: str
    done: int
    total: int | None
    seconds: float
    seconds_left: float | None
    note: str


def running_lines(opened: Sequence[Opened], growing: Growing, now: float) -> list[Line]:
    """Give a line for each running stage.

    A growth has the candidates judged and accepted, and the time that is left of all of it, as every candidate is two
    texts to generate; any other stage its items and, where it generates, the generated tokens per second.

    Args:
        opened: The stages that are running, the innermost last.
        growing: How far the growth among them is.
        now: The time, by the clock of `opened`.
    """
    lines: list[Line] = []
    for one in opened:
        stage, seconds = one.stage, now - one.since
        within = f"{outer_epoch_name(stage.outer_epoch)}: " if not lines else ""
        if stage.name == GROWTH and stage.total is not None:
            running = [other.stage.done for other in opened if other.stage.name in TEXTS]
            texts, of_batch = growing.texts + sum(running), growing.texts_of_batch + sum(running)
            texts_left = 2 * (stage.total - stage.done) / growing.processes - of_batch
            lines.append(
                Line(
                    name=f"{within}candidates",
                    done=growing.judged_before + stage.done,
                    total=growing.judged_before + stage.total,
                    seconds=seconds,
                    seconds_left=_seconds_left(seconds, texts, texts_left),
                    note=f"{growing.accepted} accepted",
                )
            )
            continue
        left = None if stage.total is None else _seconds_left(seconds, stage.done, stage.total - stage.done)
        speed = f"{stage.generated_tokens / seconds:,.0f} tokens/s" if stage.generated_tokens and seconds else ""
        lines.append(Line(f"{within}{stage.name}", stage.done, stage.total, seconds, left, speed))
    return lines


def log_line(lines: Sequence[Line]) -> str:
    """Give all lines as one, for a log.

    Args:
        lines: At least one.

    Example:
        >>> growth = Line("outer epoch 2: candidates", 128, 512, 30, 90, "101 accepted")
        >>> log_line([growth, Line("answers", 37, 64, 5, 4, "1,240 tokens/s")])
        'outer epoch 2: candidates 128/512, 101 accepted; answers 37/64, 1,240 tokens/s; 0:01:30 left'
    """
    parts = [", ".join(part for part in (f"{line.name} {count(line)}", line.note) if part) for line in lines]
    left = duration(lines[0].seconds_left)
    return "; ".join([*parts, f"{left} left"] if left else parts)


def count(line: Line) -> str:
    """Give how many items are done, and of how many.

    Args:
        line: A stage's line.
    """
    return str(line.done) if line.total is None else f"{line.done}/{line.total}"


def duration(seconds: float | None) -> str:
    """Give a time as hours, minutes and seconds; empty where there is none.

    Args:
        seconds: The time.
    """
    return "" if seconds is None else str(timedelta(seconds=int(seconds)))


def _seconds_left(seconds: float, done: float, left: float) -> float | None:
    return seconds / done * max(left, 0.0) if done else None
