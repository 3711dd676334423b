"""Every command and every piece of code in README, CONTRIBUTING and docs/ works as it stands there, but cheaper.

The command line runs for real on a tiny model, as a reader would go through the page. What cannot run like that is held
against what it asks: make, pip's options, a script's parser. Of no kind is anything left out.
"""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from helpers.documents import COMMAND, DOCUMENTS, INLINE, LANGUAGES, ROOT, blocks, section
from helpers.reader import Reader

# runs that a page takes for granted
RUNS = {
    "docs/CLUSTER.md": ("runs/mine",),
    "docs/EVALUATION.md": ("runs/mine", "runs/mine_sft", "runs/mine_icl"),
    "docs/EXPORT.md": ("runs/mine",),
    "docs/OPTIONS.md": ("runs/mine",),
    "docs/REPORT.md": ("runs/mine", "runs/mine_sft", "runs/mine_icl"),
    "docs/RESULTS.md": ("studies/tqa/set-0/isara",),
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_page_shows_works(document, tiny_llama, tiny_encoder, undisturbed, tmp_path, monkeypatch, capsys):
    reader = Reader(tmp_path, tiny_llama, tiny_encoder, undisturbed, monkeypatch)
    for name in RUNS.get(document, ()):
        reader.has_run(name)
    followed = set()
    for block in blocks(document):
        command = tuple(block.words) if block.kind in (COMMAND, INLINE) else block.text
        if command in followed:  # a sentence that names a command which stands on the page
            continue
        followed.add(command)
        assert block.kind in {*LANGUAGES, COMMAND, INLINE}, f"{document}:{block.line}: a fence needs a language"
        went_wrong = None
        try:
            reader.follow(block)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            went_wrong = f"{block}\n\n{error!r}\n{capsys.readouterr().err[-2000:]}"
        if went_wrong:
            pytest.fail(went_wrong, pytrace=False)
    if document == "README.md":
        assert_outputs_are_as_described(tmp_path, capsys.readouterr().out.splitlines())


def assert_outputs_are_as_described(folder, printed):
    """What the README says that its commands leave and print is there."""
    table = [line for line in section("README.md", "What a run leaves behind").splitlines() if line.startswith("| `")]
    names = [name for line in table for name in re.findall(r"`([^`]+)`", line.split("|")[1])]
    assert len(names) > 8
    assert [name for name in names if not (folder / "runs/mine" / name).exists()] == []
    assert len((folder / "runs/my_project/pool.jsonl").read_text().splitlines()) >= 8
    (quoted,) = [block.text for block in blocks("README.md") if "metrics.csv: " in block.text]
    places = [line for line in quoted.splitlines() if line.startswith("runs/quickstart/")]
    assert len(places) > 5
    assert [line for line in places if line not in printed] == []


# a script's smallest work; what its documented arguments are is checked above
SMALLEST = {
    "scripts/bench_filter.py": ("--sizes", "64", "--outer_epochs", "1", "--rounds", "1"),
    "scripts/bench_generation.py": (
        *("--candidates", "4", "--demonstrations", "2", "--question_tokens", "4", "--answer_tokens", "4"),
        *("--rounds", "1"),
    ),
    "scripts/bench_outer_epoch.py": ("--candidates", "4", "--outer_epochs", "1", "--rounds", "1"),
    "scripts/bench_training.py": ("--pairs", "8", "--rounds", "1"),
}


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("script", SMALLEST)
def test_a_documented_benchmark_runs(script):
    done = subprocess.run([sys.executable, script, *SMALLEST[script]], cwd=ROOT, capture_output=True, text=True)
    if script.endswith("bench_training.py") and find_spec("trl") is None:
        assert "pip install" in done.stderr  # it says what is missing
    else:
        assert done.returncode == 0, done.stderr


def test_every_documented_script_is_run_by_a_test():
    of_pages = {
        block.words[1] for page in DOCUMENTS for block in blocks(page) if block.text.startswith("python scripts/")
    }
    with_a_test_file = {"study", "gpu_check", "pack_offline", "unpack_offline", "release"}
    assert of_pages <= {*SMALLEST, *(f"scripts/{name}.py" for name in with_a_test_file)}
