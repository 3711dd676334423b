"""What tests of several processes share with others."""

import os
import subprocess
import sys
from pathlib import Path

import torch

LIMIT = 120  # seconds; a hang is what it tells from a slow machine


def on_two(arguments: list[str], run_dir: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line on two processes, and see that both are gone in the end."""
    command = [sys.executable, "-m", "isara_pl", *arguments, f"--run_dir={run_dir}", *more]
    # both hold the screen open: reading it ends when both are gone
    return subprocess.run(
        [*command, "--trainer.devices=2", "--trainer.strategy=ddp"],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=LIMIT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class FakeTrainer:
    """A trainer of so many processes, which knows what all of them would sum up to."""

    def __init__(self, count: int, of_all: torch.Tensor | None = None) -> None:
        self.world_size = count
        self.accumulate_grad_batches = 1
        self.strategy = self
        self.of_all = of_all
        self.reduced: list[torch.Tensor] = []

    def reduce(self, tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        self.reduced.append(tensor.clone())
        return tensor if self.of_all is None else self.of_all
