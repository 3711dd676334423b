"""What the terminal shows of the runs that a run is compared with."""

from pathlib import Path

import pytest

from isara_pl.report.metrics import Row, rows_text
from isara_pl.report.terminal import ending

OWN = {0: {"outer_epoch": 0, "answer_nll": 2.5}, 1: {"outer_epoch": 1, "answer_nll": 2.25, "seconds": 3.0}}
GROWTH = {"novelty": 0.125, "candidates": 8, "accepted": 1}
DAMAGED = (
    b"",
    b"a,b\n1,2\n",
    b"outer_epoch,answer_nll\n1,much\n",
    b"outer_epoch,answer_nll\n1,2.0,3.0\n",
    b"outer_epoch,answer_nll,candidates\n1,2.0,8\n",
    b"outer_epoch\n\xff\x00\n",
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return with_rows(tmp_path / "run", OWN)


def with_rows(folder: Path, rows: dict[int, Row]) -> Path:
    folder.mkdir()
    (folder / "metrics.csv").write_text(rows_text(rows, {}))
    return folder


def line_of(name: str, text: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return line


def test_a_baseline_shows_what_was_measured_last(run_dir, tmp_path):
    measured = {**OWN[0], "answer_nll": 1.75}
    done = with_rows(tmp_path / "done", {0: OWN[0], 1: {**measured, "outer_epoch": 1}})
    # α ended its last outer epoch before any training: it was not measured
    stopped = with_rows(
        tmp_path / "stopped", {0: OWN[0], 1: {**measured, "outer_epoch": 1}, 2: {"outer_epoch": 2, **GROWTH}}
    )
    text = ending(run_dir, [("sft", done), ("stopped", stopped)])
    assert "1.750" in line_of("sft", text)
    assert "1.750" in line_of("stopped", text)
    assert "2.250" in line_of("outer epoch 1", text)


def test_a_baseline_without_figures_is_left_out_and_a_damaged_one_ends_nothing(run_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    baselines = [("empty", tmp_path / "empty")]
    for place, content in enumerate(DAMAGED):
        folder = tmp_path / f"damaged{place}"
        folder.mkdir()
        (folder / "metrics.csv").write_bytes(content)
        baselines.append((folder.name, folder))
    text = ending(run_dir, [*baselines, ("sft", with_rows(tmp_path / "sft", {0: {**OWN[0], "answer_nll": 1.5}}))])
    assert "2.250" in line_of("outer epoch 1", text)
    assert "1.500" in line_of("sft", text)
    assert not any(line.startswith("empty ") for line in text.splitlines())
