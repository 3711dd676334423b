"""`evaluate --with inspect`: the real inspect_ai on a tiny run, where it is installed."""

import shutil

import pytest
from helpers.harnesses import INSPECT_TASK

from isara_pl.cli.main import main
from isara_pl.results.items import read_results


@pytest.fixture
def file(tmp_path):
    (tmp_path / "letters.py").write_text(INSPECT_TASK)
    return tmp_path / "letters.py"


def test_both_models_are_measured_and_compared(finished_run, file, capsys):
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: pip install inspect-ai")
    main(["evaluate", str(finished_run), "--with=inspect", "--tasks", str(file)])
    found = read_results(finished_run / "evaluation/inspect_letters_includes-accuracy.jsonl")
    assert [(line["outer_epoch"], line["question"]) for line in found] == [
        (outer_epoch, f"What colour is the {thing}?") for outer_epoch in (0, 2) for thing in ("sky", "sea", "moon")
    ]
    assert {line["harness_score"] for line in found} <= {0.0, 1.0}
    assert len([*(finished_run / "evaluation/inspect").glob("*.eval")]) == 2
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "includes accuracy" in line]
    assert row.split()[:5] == ["letters", "includes", "accuracy", "↑", "3"]
    main(["compare", str(finished_run)])
    assert "inspect_letters_includes-accuracy: 3 items" in capsys.readouterr().out


def test_a_task_that_fails_leaves_nothing(finished_run, file, capsys):
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: pip install inspect-ai")
    before = shutil.copytree(finished_run, finished_run.with_name("before"))
    file.write_text(
        INSPECT_TASK.replace('target="e"', 'target="e", files={"a": "none.txt"}').replace("includes()", "nothing()")
    )
    with pytest.raises(SystemExit):
        main(["evaluate", str(finished_run), "--with=inspect", "--tasks", str(file)])
    assert "inspect could not measure" in capsys.readouterr().err
    assert sorted(path.name for path in before.rglob("*")) == sorted(path.name for path in finished_run.rglob("*"))
