"""Starts of the command line, undisturbed or killed."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
LONGEST = 120  # seconds without news after which a start of seconds counts as hanging


@dataclass(frozen=True)
class Kill:
    """Where a start is killed.

    Attributes:
        stage: When it comes to this stage.
        number: For the how manieth time, from 1.
        delay: Seconds that it then still runs.
    """

    stage: str
    number: int
    delay: float = 0.0

    def __str__(self) -> str:
        return f"{self.stage} #{self.number}" + (f" +{1000 * self.delay:.0f} ms" if self.delay else "")


@dataclass(frozen=True)
class End:
    """How a start ended.

    Attributes:
        status: Exit code; negative for the signal that killed it.
        reached: Whether it came to where it should be killed.
        counts: How often it came to each stage; empty where it was killed.
    """

    status: int
    reached: bool
    counts: Counter[str]

    @property
    def killed(self) -> bool:
        """Whether it was killed, and not done before."""
        return self.status == -signal.SIGKILL


class Zygote:
    """Gives processes that have everything imported already.

    Args:
        hash_seed: Decides the order of sets in these processes, as in every Python process.
    """

    def __init__(self, hash_seed: int) -> None:
        self._reports, to_reports = os.pipe()
        from_go, self._go = os.pipe()
        paths = os.pathsep.join([str(TESTS), str(ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.zygote", str(to_reports), str(from_go)],
            stdin=subprocess.PIPE,
            pass_fds=(to_reports, from_go),
            env={**_environment(), "PYTHONPATH": paths, "PYTHONHASHSEED": str(hash_seed)},
            text=True,
        )
        os.close(to_reports)
        os.close(from_go)
        self._heard = b""
        self._running: int | None = None
        self._hear()

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running is not None:  # it hangs
            os.kill(self._running, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()
        os.close(self._reports)
        os.close(self._go)

    def start(self, command: list[str], run_dir: Path, kill: Kill | None = None) -> End:
        """Run the command line to its end, or until it is killed."""
        place = {"stage": kill.stage, "number": kill.number} if kill else {"stage": None, "number": 0}
        self._ask({"command": command, "run_dir": str(run_dir), "log": f"{run_dir}.log", **place})
        self._running = self._hear()["pid"]
        counts: Counter[str] = Counter()
        reached = False
        while "ended" not in (news := self._hear()):
            if "reached" in news and kill is not None:
                reached = True
                if kill.delay:
                    os.write(self._go, b".")
                    time.sleep(kill.delay)
                os.kill(self._running, signal.SIGKILL)
            counts.update(news.get("counts", {}))
        self._running = None
        self._ask({})
        return End(self._hear()["status"], reached, counts)

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        while b"\n" not in self._heard:
            if not select.select([self._reports], [], [], LONGEST)[0]:
                raise RuntimeError(f"no news for {LONGEST} s: the start hangs")
            more = os.read(self._reports, 65536)
            if not more:
                raise RuntimeError(f"the process that forks the others ended with {self._process.wait()}")
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        news: dict[str, Any] = json.loads(line)
        return news


def start_process(command: list[str], run_dir: Path, kill_after: float | None = None) -> int:
    """Run `python -m isara_pl`, with nothing wrapped.

    Args:
        command: What follows.
        run_dir: The run folder.
        kill_after: Kill it so many seconds after its first candidates are on disk; None for never.

    Returns:
        Its exit code; negative for the signal that killed it.
    """
    with Path(f"{run_dir}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "isara_pl", *command], cwd=ROOT, env=_environment(), stdout=log, stderr=log
        )
        if kill_after is not None:
            while not (run_dir / "rejected.jsonl").exists() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(kill_after)
            process.kill()
        return process.wait(LONGEST)


def _environment() -> dict[str, str]:
    # on one thread sums are added in one order, so the same run gives the same bits
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
