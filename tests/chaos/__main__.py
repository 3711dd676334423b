"""The long version: `make chaos KILLS=200 SEED=0`."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from chaos.findings import at_end
from chaos.starts import Zygote, start_process
from chaos.tiny_run import CONFIG, VARIANTS, command, prepare
from chaos.trials import FRESH, PLACES, Trial, Undisturbed, fresh_process, random_trial, undisturbed

MOST_FAULTS = 10  # after which a worker gives up


@dataclass
class Outcome:
    """What trials gave.

    Attributes:
        kills: How many, by place.
        identical: Kills of runs that ended as the undisturbed one.
        lost: Samples and rejected candidates that were lost.
        duplicated: Those that stand there more than once.
        faults: Trials whose run did not end as the undisturbed one.
    """

    kills: Counter[str] = field(default_factory=Counter)
    identical: int = 0
    lost: int = 0
    duplicated: int = 0
    faults: int = 0


class Worker:
    """Makes one trial after the other.

    Args:
        zygote: Starts the runs.
        folder: Where they lie.
        whole: The undisturbed run of each variant.
        seed: Decides all kills, together with the number of the trial.
    """

    def __init__(self, zygote: Zygote, folder: Path, whole: Mapping[str, Undisturbed], seed: int) -> None:
        self.zygote = zygote
        self.folder = folder
        self.whole = whole
        self.seed = seed
        self.outcome = Outcome()

    def work(self, first: int, step: int, kills: int) -> Outcome:
        """Make every so many-th trial, until there were enough kills."""
        number = first
        while self.outcome.kills.total() < kills and self.outcome.faults < MOST_FAULTS:
            self._trial(number, kills - self.outcome.kills.total())
            number += step
        return self.outcome

    def _trial(self, number: int, most_kills: int) -> None:
        first = PLACES[number % len(PLACES)]
        variant = list(VARIANTS)[number // len(PLACES) % len(VARIANTS)]
        whole = self.whole[variant]
        run_dir = self.folder / f"trial-{number}"
        start = fresh_process if first == FRESH else self.zygote.start
        trial = Trial(start, self.folder / CONFIG, variant, whole.folder, run_dir)
        began = time.perf_counter()
        found = random_trial(random.Random(f"{self.seed}-{number}"), trial, first, most_kills, whole)
        self.outcome.kills.update(kill.stage for kill in trial.kills)
        self.outcome.lost += found.lost
        self.outcome.duplicated += found.duplicated
        places = ", ".join(map(str, trial.kills)) or "done before the kill"
        said = "; ".join(found.problems) or "identical"
        print(f"trial {number}, {variant}, {time.perf_counter() - began:.1f} s: {places}: {said}", flush=True)
        if found.problems:
            self.outcome.faults += 1
            again = f"KILLS={max(len(trial.kills), 1)} SEED={self.seed} FIRST={number} WORKERS=1"
            print(f"  FAULT: kept in {run_dir}, its output in {run_dir}.log. Again: make chaos {again}", flush=True)
        else:
            self.outcome.identical += len(trial.kills)
            shutil.rmtree(run_dir)
            Path(f"{run_dir}.log").unlink()


def main() -> int:
    """Make the trials; give the exit code."""
    parser = argparse.ArgumentParser("chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--workers", type=int, default=2, help="runs at once")
    options = parser.parse_args()
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="isara-chaos-"))
    config = prepare(folder)
    print(f"runs in {folder}", flush=True)
    with ExitStack() as stack, ThreadPoolExecutor(options.workers) as pool:
        # hash seeds: sets have another order in each of them
        zygotes = [stack.enter_context(zygote) for zygote in pool.map(Zygote, range(1, options.workers + 1))]
        whole = {variant: undisturbed(zygotes[0], config, variant, folder / variant) for variant in VARIANTS}
        fresh = list(pool.map(lambda variant: _fresh_problems(config, variant, whole[variant].folder), VARIANTS))
        workers = [Worker(zygote, folder, whole, options.seed) for zygote in zygotes]
        shares = [len(range(place, options.kills, options.workers)) for place in range(options.workers)]
        running = [
            pool.submit(worker.work, options.first + place, options.workers, share)
            for place, (worker, share) in enumerate(zip(workers, shares, strict=True))
        ]
        outcomes = [future.result() for future in running]
    good = _report(outcomes, time.perf_counter() - began) and not any(fresh)
    if good:
        shutil.rmtree(folder)
    return 0 if good else 1


def _fresh_problems(config: Path, variant: str, whole: Path) -> list[str]:
    """Give how an undisturbed run of a fresh process differs from that of a forked one."""
    run_dir = config.parent / f"{variant}-fresh"
    status = start_process(command(config, variant, run_dir, resume=False), run_dir)
    problems = at_end(run_dir, whole).problems if status == 0 else [f"it ended with {status}"]
    print(f"undisturbed run of a fresh process, {variant}: {'; '.join(problems) or 'identical'}", flush=True)
    return problems


def _report(outcomes: list[Outcome], seconds: float) -> bool:
    """Print what was found; give whether all was as it should be."""
    by_place = sum((outcome.kills for outcome in outcomes), Counter[str]())
    kills = by_place.total()
    identical, lost, duplicated, faults = (
        sum(getattr(outcome, name) for outcome in outcomes) for name in ("identical", "lost", "duplicated", "faults")
    )
    print("\nkills by stage:")
    for place in PLACES:
        print(f"{by_place[place]:5d}  {place}")
    print(f"{seconds:.0f} s, {seconds / max(kills, 1):.1f} s a kill, {faults} trials with a fault")
    print(f"chaos: {kills} kills, {identical} identical, {lost} lost, {duplicated} duplicated")
    return faults == 0


if __name__ == "__main__":
    sys.exit(main())
