"""What tests of compare share with others."""

import json
import random
from pathlib import Path
from typing import Any

from isara_pl.results.items import write_results

Line = dict[str, Any]
ITEMS = 60


FAST = ["--resamples", "1000"]


def items(mc2: float, nll: float, seed: int, seeds: str = "seeds-a", demonstrations: bool = False) -> list[Line]:
    """Give items whose questions are as hard in every run; noise of its own comes from `seed`."""
    hard, noise = random.Random("questions"), random.Random(seed)
    lines = []
    for number in range(ITEMS):
        easy, tokens = hard.uniform(0.2, 0.8), hard.randint(2, 20)
        lines.append(
            {
                "id": f"held-out-{number:05d}",
                "question": f"Question {number}?",
                "category": None,
                "seeds": seeds,
                "demonstrations": ["seed-00001"] if demonstrations else [],
                "contaminated": False,
                "mc2": easy + mc2 + noise.gauss(0, 0.05),
                "answer_nll": 4 - easy + nll + noise.gauss(0, 0.1),
                "answer_tokens": tokens,
            }
        )
    return lines


def write_run(
    path: Path, measured: dict[int, list[Line]], generated: int | None = None, conditions: Line | None = None
) -> str:
    """Write a run folder; `generated` samples in its pool, or no pool at all."""
    for outer_epoch, lines in measured.items():
        write_results(path, "truthfulness", outer_epoch, lines)
    if generated is not None:
        rows = [{"id": "seed-00000", "outer_epoch": 0}, *({"id": f"1-{n}", "outer_epoch": 1} for n in range(generated))]
        (path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if generated:
            (path / "rejected.jsonl").write_text("")
    if conditions is not None:
        (path / "conditions.json").write_text(json.dumps(conditions))
    return str(path)


def only(found: Line) -> Line:
    evaluation: Line
    (evaluation,) = found["evaluations"]
    return evaluation


def row(found: Line, method: str) -> Line:
    rows: list[Line] = only(found)["rows"]
    return next(row for row in rows if row["method"] == method)


def contrast(found: Line, method: str, reference: str, measure: str) -> Line:
    one: Line
    wanted = {"method": method, "reference": reference, "measure": measure}
    (one,) = [each for each in only(found)["contrasts"] if wanted.items() <= each.items()]
    return one
