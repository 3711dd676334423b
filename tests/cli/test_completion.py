"""What a shell completes, in a real bash."""

import subprocess
from pathlib import Path

import pytest

from isara_pl.cli.main import main

# completes the last word as bash does when Tab is pressed
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
$(complete -p isara-pl | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "isara-pl"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as file:
        patch.setattr("sys.stdout", file)
        main(["completion", "bash"])
    return path


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("comp", ["compare", "completion"]),
        ("fit --data.cand", ["--data.candidates_per_outer_epoch", "--data.candidates_per_batch"]),
        ("fit --data.question_context k", ["knn"]),
        ("fit --model.gradient_checkpointing t", ["true"]),
        ("fit --trainer.callbacks+ TooS", ["TooShort"]),
        ("predict --data.questions pa", ["pairs.jsonl"]),
        ("validate --config pa", ["pairs.jsonl"]),
        ("compare pa", ["pairs.jsonl"]),
        ("compare runs/x --outer_epochs ", ["last", "all"]),
        ("report --base", ["--baselines"]),
        ("export runs/x --lic", ["--license"]),
        ("fit --data.seed", ["--data.seeds"]),
    ],
)
def test_a_word_is_completed(script, tmp_path, line, completions):
    (tmp_path / "pairs.jsonl").touch()
    command = ["bash", "-c", COMPLETE, "bash", str(script), "isara-pl", *line.split(" ")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.split() == completions


def test_the_script_is_small_enough_for_every_start_of_a_shell(script):
    assert script.stat().st_size < 200_000
    assert "-->" not in script.read_text(), "how jsonargparse notes an option that follows from others"


def test_without_shtab_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("isara_pl.cli.commands.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["completion", "zsh"])
    assert stop.value.code == 1
    assert "pip install 'isara_pl[completion]'" in capsys.readouterr().err
