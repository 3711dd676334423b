"""The figures of every item, in `evaluation/<name>.jsonl` of a run folder: one line an item and outer epoch.

Every line holds `outer_epoch` (0 is the pretrained model), `id`, `question`, `weights` (a hash of the adapter's
that were measured, or of the pretrained model's), `seeds` (a hash of the seeds of the run), `demonstrations`
(ids of those in its prompt), `contaminated` (whether training data hold the item; null where nobody looked),
the figures by the names of `isara_pl.results.measures`, and what the evaluation adds: the answer given, the
log-probability of every choice. A figure that is not finite is null.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isara_pl.errors import InputError
from isara_pl.run.files import write_whole

FOLDER = "evaluation"


def write_results(run_dir: Path, name: str, outer_epoch: int, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write the lines of an outer epoch; those that the file has of the same outer epoch are replaced.

    Args:
        run_dir: The run folder.
        name: Name of the evaluation.
        outer_epoch: Which outer epoch the lines are of.
        lines: One mapping for each item, without `outer_epoch`.

    Returns:
        The file. It is written beside and then renamed, so it is never half-written.
    """
    path = run_dir / FOLDER / f"{name}.jsonl"
    kept = [line for line in read_results(path) if line["outer_epoch"] != outer_epoch] if path.exists() else []
    every = sorted([*kept, *({"outer_epoch": outer_epoch, **line} for line in lines)], key=_outer_epoch)
    write_whole(path, "".join(json.dumps(_finite(line), ensure_ascii=False, allow_nan=False) + "\n" for line in every))
    return path


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the lines of an evaluation.

    Args:
        path: The file.

    Raises:
        InputError: If a line is not one of `write_results`.
    """
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            line = json.loads(text)
            _outer_epoch(line)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: damaged line ({error}). Evaluate again, or remove the file") from None
        lines.append(line)
    return lines


def _outer_epoch(line: Mapping[str, Any]) -> int:
    return int(line["outer_epoch"])


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by null, at every depth."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
