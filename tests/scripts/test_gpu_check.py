"""scripts/gpu_check.py: what fails is a row, what would begin too late is left out, and nothing found is lost."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
OPTIONS = ["--device", "cpu", "--shape", "tiny"]
REPORT = """<testsuites><testsuite>
<testcase name="test_right[one]" time="1.5"><properties><property name="share" value="0.9"/></properties></testcase>
<testcase name="test_right[two]" time="0.5"><properties><property name="share" value="1.0"/></properties></testcase>
<testcase name="test_wrong[one]" time="1"><failure message="assert 1 == 2&#10;more">long</failure></testcase>
<testcase name="test_broken" time="0"><error message="no fixture">long</error></testcase>
<testcase name="test_left_out[one]" time="0"><skipped message="no GPU">where</skipped></testcase>
<testcase name="test_left_out[two]" time="0"><skipped message="no GPU">where</skipped></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    module = importlib.import_module("gpu_check")
    monkeypatch.setattr(module, "quieten", lambda: None)  # it changes the loggers of the whole process
    return module


def sections(script, monkeypatch, **functions) -> None:
    monkeypatch.setattr(script, "SECTIONS", {name: script.Section(run, 60) for name, run in functions.items()})


def test_what_fails_is_a_row_and_the_next_section_runs(script, monkeypatch, tmp_path, capsys):
    seen = []

    def breaks(check):
        yield script.Row("before", 1.0, "s")
        raise ValueError("it broke\nand more")

    def works(check):
        seen.append(json.loads((tmp_path / "rows.json").read_text()))
        yield script.Row("a figure", 1234.5, "tokens/s", "of this machine")

    sections(script, monkeypatch, breaks=breaks, works=works)
    assert script.main([*OPTIONS, "--json", str(tmp_path / "rows.json")]) == 1
    (before,) = seen
    assert [(row["what"], row["note"]) for row in before["rows"][:2]] == [
        ("before", ""),
        ("failed", "ValueError: it broke"),
    ]
    said = capsys.readouterr().out
    assert "FAILED ValueError: it broke" in said
    assert "1,234 tokens/s" in said or "1,235 tokens/s" in said
    assert "1 failed" in said
    monkeypatch.delitem(script.SECTIONS, "breaks")
    assert script.main([*OPTIONS]) == 0


def test_a_section_that_would_begin_too_late_is_left_out(script, monkeypatch, capsys):
    ran = []

    def slow(check):
        ran.append("slow")
        yield script.Row("done")

    sections(script, monkeypatch, first=slow, second=slow)
    assert script.main([*OPTIONS, "--budget", "0"]) == 0
    assert not ran
    assert capsys.readouterr().out.count("left out: no time") == 2


def test_a_section_that_does_not_end_is_ended(script, monkeypatch, capsys):
    def hangs(check):
        yield script.Row("before")
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(script, "SECTIONS", {"hangs": script.Section(hangs, 1)})
    assert script.main(OPTIONS) == 1
    assert "TimeoutError: not done in 3 s" in capsys.readouterr().out


def test_the_tests_are_rows(script):
    rows = [*importlib.import_module("gpu_facts").reported(REPORT)]
    assert [(row.what, row.value, row.note, row.failed) for row in rows] == [
        ("tests passed", 2, "in 3 s", False),
        ("wrong[one]", "failed", "assert 1 == 2", True),
        ("broken", "failed", "no fixture", True),
        ("left_out", "skipped", "2 x: no GPU", False),
        ("right", 0.9, "share, up to 1", False),
    ]


@pytest.mark.slow
def test_the_cheapest_sections_run_on_a_cpu(tmp_path):
    command = [sys.executable, "scripts/gpu_check.py", *OPTIONS, "--json", str(tmp_path / "rows.json")]
    command += ["--sections", "facts", "attention", "quickstart"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["section"] for row in rows} == {"facts", "attention", "quickstart"}
    assert all(len(line) <= 120 for line in done.stdout.splitlines())


def test_an_interrupted_check_shows_what_it_has(script, monkeypatch, capsys):
    def interrupted(check):
        yield script.Row("a figure", 12.5, "s")
        raise KeyboardInterrupt

    sections(script, monkeypatch, first=interrupted)
    assert script.main(OPTIONS) == 1
    said = capsys.readouterr().out
    assert "12.5 s" in said
    assert "FAILED interrupted" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_check_says_so_at_once(script, capsys):
    with pytest.raises(SystemExit):
        script.main([])
    assert (
        "torch finds no CUDA GPU here. `--device cpu --shape tiny` tries the script itself" in capsys.readouterr().err
    )
