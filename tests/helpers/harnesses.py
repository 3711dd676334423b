"""Tasks of other harnesses with their data in files."""

import json
from pathlib import Path
from typing import Any

import yaml

INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate


@task
def letters():
    things = ["sky", "sea", "moon"]
    samples = [Sample(input=f"What colour is the {thing}?", target="e") for thing in things]
    return Task(dataset=samples, solver=generate(max_tokens=8), scorer=includes())
"""


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **config: Any) -> None:
    """Write a task of lm-eval, as people write their own: a YAML file, and the items beside it."""
    folder.mkdir(exist_ok=True)
    items = folder / f"{name}.jsonl"
    items.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    own = {
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(items)}},
        "validation_split": "validation",
        **config,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")


def write_colours(folder: Path, name: str = "colours", **config: Any) -> None:
    """Write a task of six items with two choices each."""
    rows = [{"question": f"What colour is thing number {i}?", "choices": ["blue", "red as fire"]} for i in range(6)]
    choosing = {
        "output_type": "multiple_choice",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 0,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    write_task(folder, name, rows, **{**choosing, **config})
