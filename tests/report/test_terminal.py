"""What the terminal shows of the runs that a run is compared with."""

from pathlib import Path

import pytest

from isara_pl.report.terminal import ending
from isara_pl.results.metrics import Row, read_rows, rows_text

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


SHOTS = {"demonstrations": 2, "max_new_tokens": 0}


@pytest.mark.parametrize(
    ("evaluations", "figure"),
    [
        ([SHOTS], "best_answer_nll"),
        ([{**SHOTS, "context": "random"}], "best_answer_nll"),
        ([{"max_new_tokens": 0}, {**SHOTS, "name": "shown"}], "shown_best_answer_nll"),
    ],
    ids=["nearest", "random", "beside one without"],
)
def test_in_context_learning_shows_its_own_figure_as_its_own(evaluations, figure, run, tmp_path, capsys):
    folder = run("validate", [("TruthfulnessEvaluation", options) for options in evaluations], name="icl")
    text = capsys.readouterr().out
    row = read_rows(folder / "metrics.csv")[0]
    own, without = f"{row[figure]:.3f}", f"{row['answer_nll']:.3f}"
    assert own != without
    assert line_of("pretrained", text).split()[1] == own
    assert "All of it with demonstrations in the prompt" in text
    assert f"without them the answer NLL of the held-out pairs is {without}" in text
    # and as a baseline of another run
    beside = ending(with_rows(tmp_path / "other", OWN), [("icl", folder)])
    assert line_of("icl", beside).split()[1] == own
    assert "demonstrations" not in beside


def test_a_figure_without_demonstrations_is_none_of_in_context_learning(run, pairs_file, capsys):
    folder = run("validate", [("HarmPreferenceEvaluation", {"pairs": pairs_file, "demonstrations": 2})])
    text = capsys.readouterr().out
    without = f"{read_rows(folder / 'metrics.csv')[0]['answer_nll']:.3f}"
    assert without not in line_of("pretrained", text)
    assert f"without them the answer NLL of the held-out pairs is {without}" in text


def test_the_pretrained_model_alone_says_nothing_of_demonstrations(run, capsys):
    folder = run("validate", [("TruthfulnessEvaluation", {"max_new_tokens": 0})])
    text = capsys.readouterr().out
    assert f"{read_rows(folder / 'metrics.csv')[0]['answer_nll']:.3f}" in line_of("pretrained", text)
    assert "demonstrations" not in text


def test_a_trained_model_that_is_measured_in_context_too_shows_what_it_was_validated_by(run, capsys):
    folder = run("fit", [("TruthfulnessEvaluation", SHOTS)], "--data.outer_epochs=1")
    text = capsys.readouterr().out
    for name, row in (("pretrained", 0), ("outer epoch 1", 1)):
        assert f"{read_rows(folder / 'metrics.csv')[row]['answer_nll']:.3f}" in line_of(name, text)
    assert "All of it with demonstrations" not in text


def test_a_run_of_which_nothing_was_measured_shows_a_table_too(tmp_path):
    assert "No held-out pairs were given" in ending(tmp_path, [])
