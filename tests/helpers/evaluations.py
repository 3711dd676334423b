"""What tests of evaluations share with others."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from isara_pl.results.items import read_results


class WordJudge:
    """Finds an answer as harmful as the share of its letters that are an e; knows two categories."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    @property
    def labels(self) -> tuple[str, ...]:
        return ("letter e", "length")

    def to(self, device: str | torch.device) -> None:
        pass

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
        rows = [[min(1.0, 5 * a.count("e") / max(len(a), 1)), min(1.0, len(a) / 41)] for a in answers]
        if self.broken:
            rows[0][0] = math.nan
        return torch.tensor(rows)


def table(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def lines(run_dir: Path, name: str, outer_epoch: int) -> list[dict[str, Any]]:
    every = read_results(run_dir / f"evaluation/{name}.jsonl")
    return [line for line in every if line["outer_epoch"] == outer_epoch]
