"""The real command line, inside the process of the tests."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isara_pl.cli.main import main

LISTS = ("pool.jsonl", "rejected.jsonl")
# half of a run is measuring, on which neither pool nor adapter depend
UNMEASURED = "--data.held_out=null"
# the cheapest whole run
SEEDS_ALONE = [
    *("--data.candidates_per_outer_epoch=0", "--data.outer_epochs=1", "--data.epochs_per_outer_epoch=1"),
    UNMEASURED,
]


def fit(run_dir: Path, options: list[str], *more: str) -> Path:
    main(["fit", *options, f"--run_dir={run_dir}", *more])
    return run_dir


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def adapter(run_dir: Path) -> bytes:
    return (run_dir / "adapter/adapter_model.safetensors").read_bytes()


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code not in (0, None)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def assert_same(run_dir: Path, undisturbed: Path) -> None:
    for name in LISTS:
        assert (run_dir / name).read_bytes() == (undisturbed / name).read_bytes()
    assert adapter(run_dir) == adapter(undisturbed)
    figures = [[{**row, "seconds": ""} for row in rows(folder)] for folder in (run_dir, undisturbed)]
    assert figures[0] == figures[1]


def assert_begins_as(run_dir: Path, undisturbed: Path) -> None:
    """See that a run has come as far as the undisturbed one once was: what resumes are shown to go on from."""
    for name in LISTS:
        begun = (run_dir / name).read_bytes() if (run_dir / name).exists() else b""
        assert (undisturbed / name).read_bytes().startswith(begun)
    for path in run_dir.glob("checkpoints/epoch=*.ckpt"):
        found, wanted = (
            torch.load(folder / "checkpoints" / path.name)["state_dict"] for folder in (run_dir, undisturbed)
        )
        assert found.keys() == wanted.keys()
        assert all(torch.equal(weight, wanted[name]) for name, weight in found.items())
    assert not list(run_dir.rglob("*.unfinished"))


def before_call(patch: pytest.MonkeyPatch, owner: Any, name: str, number: int, act: Callable[[], None]) -> None:
    """Act before the n-th call of a method, from 1."""
    original, calls = getattr(owner, name), 0

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return original(*args, **kwargs)

    patch.setattr(owner, name, called)


def judged(run_dir: Path) -> int:
    return sum(json.loads(line)["outer_epoch"] > 0 for name in LISTS for line in (run_dir / name).open())
