"""Run folders as files, made without a run."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from isara_pl.growth.pool import Rejected, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.results.items import write_results

ITEMS = 60
SEEDS = [
    Sample(f"seed-{n:05d}", f"How many legs have {n + 2} cats?", f"They have {4 * (n + 2)} legs, all of them.")
    for n in range(4)
]


def accepted(outer_epoch: int, number: int, **fields: Any) -> Sample:
    text: dict[str, Any] = {
        "question": f"Why does thing {number} fall in year {outer_epoch}?",
        "answer": f"Mass {number} draws it down.",
    }
    shown = {"question_demonstrations": ("seed-00001", "seed-00000"), "answer_demonstrations": ("seed-00002",)}
    scores = {"NearDuplicate": 0.1 + number / 100, "Empty": 7.0}
    return Sample(
        **{"id": f"{outer_epoch}-{number:05d}", "outer_epoch": outer_epoch, **text, **shown, "scores": scores, **fields}
    )


def rejected(outer_epoch: int, number: int, taken_by: str = "NearDuplicate", **fields: Any) -> Rejected:
    return Rejected(accepted(outer_epoch, number, scores={}, **fields), taken_by, Verdict(0.9, "ROUGE-L above 0.7"))


def items(shift: float, noise: int, count: int = ITEMS, seeds: str = "abc") -> list[dict[str, Any]]:
    """Give items whose answer NLL lies about `shift` above that of other runs, and whose MC2 is noise."""
    hard, own = random.Random("items"), random.Random(noise)
    return [
        {
            "id": f"held-out-{number:05d}",
            "question": f"What is in box {number}?",
            "seeds": seeds,
            "demonstrations": [],
            "contaminated": None,
            "answer_nll": hard.uniform(1, 4) + shift + own.gauss(0, 0.05),
            "answer_tokens": hard.randint(2, 20),
            "mc2": hard.uniform(0.3, 0.6) + own.gauss(0, 0.1),
        }
        for number in range(count)
    ]


def write_run(
    folder: Path,
    shifts: Mapping[int, float] | None = None,
    pool: Sequence[Sample] = (),
    taken: Sequence[Rejected] | None = (),
    alpha: float = 0.2,
    outer_epochs: int = 2,
    candidates: int = 4,
    count: int = ITEMS,
) -> Path:
    """Write a run: `shifts` of the answer NLL by outer epoch, accepted and rejected candidates (None: no such file)."""
    (folder / "evaluation").mkdir(parents=True)
    (folder / "pool.jsonl").write_text("".join(sample.to_json() + "\n" for sample in [*SEEDS, *pool]))
    if taken is not None:
        (folder / "rejected.jsonl").write_text("".join(entry.to_json() + "\n" for entry in taken))
    rows = ["outer_epoch,answer_nll,novelty,candidates,accepted,trained_on,seconds"]
    grown = {sample.outer_epoch for sample in pool} | {entry.candidate.outer_epoch for entry in taken or ()}
    for number in sorted({*(shifts or {}), *grown}):
        shift = (shifts or {}).get(number)
        if shift is not None:
            write_results(folder, "truthfulness", number, items(shift, number, count))
        counts: tuple[Any, ...] = ("",) * 4
        if number:
            got = sum(sample.outer_epoch == number for sample in pool)
            judged = got + sum(entry.candidate.outer_epoch == number for entry in taken or ())
            counts = (got / judged if judged else "", judged or "", got if judged else "", 0 if shift is None else 10)
        rows.append(",".join(map(str, (number, "" if shift is None else 2 + shift, *counts, 30))))
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    data = {"outer_epochs": outer_epochs, "candidates_per_outer_epoch": candidates, "held_out": "/far/away/held.jsonl"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data, "alpha_stopping": {"alpha": alpha}}))
    conditions = {
        "data.encoder": "/far/away/encoder",
        "filters": ["NearDuplicate(threshold=0.7)", "Words('/far/list')"],
    }
    (folder / "conditions.json").write_text(json.dumps(conditions))
    return folder
