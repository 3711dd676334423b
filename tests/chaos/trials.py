"""A trial: a run that is killed some times, resumed until it is done, and compared with an undisturbed one."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.findings import Findings, after_kill, at_end, complete_lines
from chaos.starts import End, Kill, Zygote, start_process
from chaos.tiny_run import command
from chaos.watch import ANY_MOMENT, STAGES

FRESH = "any moment of a fresh process"
PLACES = (*STAGES, ANY_MOMENT, FRESH)
LONGEST_DELAY = 0.02  # seconds between coming to a stage and the kill
Start = Callable[[list[str], Path, Kill | None], End]


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed.

    Attributes:
        folder: What it left behind.
        counts: How often it came to each stage.
        seconds: How long it took.
    """

    folder: Path
    counts: Counter[str]
    seconds: float


class Trial:
    """One run folder, in which the same command is started again and again.

    Args:
        start: Starts the command line: its arguments, the run folder, where it is killed.
        config: Configuration of the run.
        variant: How checkpoints are written.
        whole: Folder of the undisturbed run.
        run_dir: The run folder.
    """

    def __init__(self, start: Start, config: Path, variant: str, whole: Path, run_dir: Path) -> None:
        self.variant = variant
        self.run_dir = run_dir
        self.kills: list[Kill] = []
        self.problems: list[str] = []
        self._start = start
        self._config = config
        self._whole = whole
        self._before: dict[str, bytes] = {}
        self._starts = 0

    def kill(self, place: Kill) -> End:
        """Start, and kill there; look at what is on disk then."""
        end = self._started(place)
        if end.killed:
            self.kills.append(place)
            found = after_kill(self.run_dir, self._whole, self._before)
            self.problems += [f"{problem} after {place}" for problem in found]
            self._before = complete_lines(self.run_dir)
        return end

    def finish(self) -> Findings:
        """Resume, let the run end, and compare."""
        self._started(None)
        found = at_end(self.run_dir, self._whole)
        return Findings([*self.problems, *found.problems], found.lost, found.duplicated)

    def _started(self, place: Kill | None) -> End:
        arguments = command(self._config, self.variant, self.run_dir, resume=self._starts > 0)
        end = self._start(arguments, self.run_dir, place)
        self._starts += 1
        if not end.killed and end.status != 0:
            self.problems.append(f"start {self._starts} ended with {end.status}")
        return end


def undisturbed(zygote: Zygote, config: Path, variant: str, run_dir: Path) -> Undisturbed:
    """Make a run that nobody kills.

    Raises:
        RuntimeError: If it fails, or does not come to all stages: a kill there would show nothing.
    """
    began = time.perf_counter()
    end = zygote.start(command(config, variant, run_dir, resume=False), run_dir)
    if end.status != 0:
        raise RuntimeError(f"the undisturbed run ended with {end.status}, see {run_dir}.log")
    never = [stage for stage in STAGES if not end.counts[stage]]
    if never:
        raise RuntimeError(f"the undisturbed run never came to: {', '.join(never)}. See chaos/watch.py")
    journals = complete_lines(run_dir)
    if not journals["rejected.jsonl"] or b'"outer_epoch": 2' not in journals["pool.jsonl"]:
        raise RuntimeError("the undisturbed run must accept some candidates and reject others. See chaos/tiny_run.py")
    return Undisturbed(run_dir, end.counts, time.perf_counter() - began)


def fresh_process(arguments: list[str], run_dir: Path, kill: Kill | None) -> End:
    """Start without a zygote, as a user does."""
    status = start_process(arguments, run_dir, kill.delay if kill else None)
    return End(status, reached=True, counts=Counter())


def random_trial(draw: random.Random, trial: Trial, first: str, most_kills: int, whole: Undisturbed) -> Findings:
    """Kill a run at random moments, 1 to 3 times.

    Args:
        draw: Decides the moments.
        trial: A fresh one.
        first: Where the first kill is; the others are anywhere. A fresh process is killed once.
        most_kills: At most so many.
        whole: The undisturbed run.
    """
    times = 1 if first == FRESH else draw.choice((1, 1, 2, 3))
    for number in range(min(times, most_kills)):
        place = _draw_kill(draw, draw.choice((*STAGES, ANY_MOMENT)) if number else first, whole)
        end = trial.kill(place)
        if number == 0 and not end.reached:  # later starts may have it behind them
            trial.problems.append(f"never came to {place}")
        if not end.killed:
            break
    return trial.finish()


def _draw_kill(draw: random.Random, place: str, whole: Undisturbed) -> Kill:
    if place in (ANY_MOMENT, FRESH):
        return Kill(place, 1, draw.uniform(0, whole.seconds))
    delay = draw.choice((0.0, draw.uniform(0, LONGEST_DELAY)))
    return Kill(place, draw.randint(1, whole.counts[place]), delay)
