"""What tests of several processes share with others."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

LIMIT = 120  # seconds; a hang is what it tells from a slow machine
GREEDY = (
    "--data.question_sampling.do_sample=false",
    "--data.answer_sampling.do_sample=false",
    "--data.candidates_per_outer_epoch=7",
    "--data.batch_size=5",
)


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


def table(run_dir: Path) -> list[dict[str, float]]:
    with (run_dir / "metrics.csv").open() as file:
        return [
            {name: float(value) for name, value in row.items() if value and name not in ("seconds", "weights")}
            for row in csv.DictReader(file)
        ]


def assert_like(run_dir: Path, alone: Path) -> None:
    for name in ("pool.jsonl", "rejected.jsonl"):
        assert (run_dir / name).read_bytes() == (alone / name).read_bytes()
    for row, of_one in zip(table(run_dir), table(alone), strict=True):
        assert row == pytest.approx(of_one, rel=1e-3, abs=1e-5, nan_ok=True)
    adapters = [load_file(folder / "adapter/adapter_model.safetensors") for folder in (run_dir, alone)]
    for key, value in adapters[0].items():
        torch.testing.assert_close(value, adapters[1][key], rtol=0, atol=1e-3)  # a step changes a weight by 1e-2
    files = [{path.name: load_file(path) for path in (folder / "teacher").iterdir()} for folder in (run_dir, alone)]
    assert files[0].keys() == files[1].keys()
    for name, of_two in files[0].items():
        torch.testing.assert_close(of_two["log_probs"], files[1][name]["log_probs"], rtol=0, atol=1e-3)
    names = [sorted(path.name for path in (folder / "evaluation").iterdir()) for folder in (run_dir, alone)]
    assert names[0] == names[1]
    for name in names[0]:
        lines = [map(json.loads, (folder / "evaluation" / name).open()) for folder in (run_dir, alone)]
        for line, of_one in zip(*lines, strict=True):
            assert (line["id"], line["outer_epoch"], line.get("demonstrations")) == (
                of_one["id"],
                of_one["outer_epoch"],
                of_one.get("demonstrations"),
            )
