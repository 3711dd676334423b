"""Split TruthfulQA.csv into a seeds file and a held-out file for isara_pl.

The file is at https://github.com/sylinrl/TruthfulQA (Apache-2.0).
"""

import argparse
import csv
import json
import random
from pathlib import Path


def convert(row: dict[str, str]) -> dict[str, str | list[str]]:
    """Give a row in the fields that isara_pl reads; the best answer is the first correct one."""
    best = row["Best Answer"].strip()
    correct, incorrect = (
        [answer.strip() for answer in row[column].split(";") if answer.strip()]
        for column in ("Correct Answers", "Incorrect Answers")
    )
    return {
        "question": row["Question"].strip(),
        "answer": best,
        "category": row["Category"],
        "correct_answers": [best, *(answer for answer in correct if answer != best)],
        "incorrect_answers": incorrect,
    }


def main() -> None:
    """Read the command line and write seeds.jsonl and held_out.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path, help="TruthfulQA.csv")
    parser.add_argument("--seeds", type=int, default=64, help="Number of seeds; the rest is held out.")
    parser.add_argument("--seed", type=int, default=0, help="Decides which rows become seeds.")
    parser.add_argument("--to", type=Path, required=True, help="Folder to write to.")
    arguments = parser.parse_args()
    with arguments.csv.open(newline="", encoding="utf-8-sig") as file:
        rows = [convert(row) for row in csv.DictReader(file)]
    if len(rows) <= arguments.seeds:
        parser.error(f"{arguments.csv} has {len(rows)} rows; --seeds must be below that")
    random.Random(arguments.seed).shuffle(rows)
    arguments.to.mkdir(parents=True, exist_ok=True)
    for name, part in (("seeds", rows[: arguments.seeds]), ("held_out", rows[arguments.seeds :])):
        path = arguments.to / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part), encoding="utf-8")
        print(f"{path}: {len(part)} rows")


if __name__ == "__main__":
    main()
