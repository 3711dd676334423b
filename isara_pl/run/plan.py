"""How far a fit was to go and how far it came: options that end it, on which the pool does not depend."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError
from isara_pl.run.files import write_whole

FILE = "plan.json"
TRAINED = "trained_outer_epochs"  # how many of the planned ones were trained to their end; known once a fit has ended


def write_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write a plan, values by the names of their options, into a run folder."""
    write_whole(folder / FILE, json.dumps(plan, indent=1) + "\n")


def read_plan(folder: Path) -> dict[str, Any]:
    """Read the plan of a run folder; empty where there is none. Raises InputError if the file is damaged."""
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}). Restore it from a copy, or remove it") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged (no object). Restore it from a copy, or remove it")
    return found
