"""The command line before and around its subcommands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import isara_pl
from isara_pl.cli import commands, help
from isara_pl.cli.help import LINES
from isara_pl.cli.main import main

# all in one process, whose start costs more than the rest
WITHOUT_TORCH = """
import contextlib, sys
from isara_pl import InputError, __version__
from isara_pl.cli.main import main

for arguments in ([], ["--help"], ["--version"], ["compare", "--help"], ["compare", "nothing"], ["fitt"], ["export", "x"], ["quickstart", "--help"]):
    with contextlib.suppress(SystemExit):
        main(arguments)
slow = {"torch", "lightning", "transformers", "sentence_transformers"} & {*sys.modules}
assert not slow, slow
"""


def test_help_versions_and_comparisons_do_not_wait_for_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_threads_of_a_command_do_not_wait_busily_for_long_unless_the_user_says_so():
    command = [sys.executable, "-c", "from isara_pl.cli.main import main; main([]); import torch"]
    policies = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    for own, spins in (({}, 1000), ({"GOMP_SPINCOUNT": "7"}, 7), ({"OMP_WAIT_POLICY": "passive"}, 0)):
        environment = {name: value for name, value in os.environ.items() if name not in policies}
        environment |= {"OMP_DISPLAY_ENV": "verbose", **own}  # whereupon the OpenMP that torch loads says what it does
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


def test_without_arguments_the_three_commands_to_begin_with_are_shown(capsys):
    main([])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) <= 12
    commands = [line.split()[1] for line in shown if line.strip().startswith("isara-pl ")]
    assert commands == ["fit", "report", "compare"]
    assert max(map(len, shown)) <= 120


def test_the_command_that_is_shown_first_is_one_that_parses(capsys):
    main([])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " fit --model.name" in line]
    with pytest.raises(SystemExit) as stop:
        main([*line.split()[1:], "--print_config"])
    assert stop.value.code == 0
    assert "seeds: PAIRS.jsonl" in capsys.readouterr().out


def test_the_help_has_every_subcommand_on_a_line_of_its_own(capsys):
    main(["--help"])
    shown = capsys.readouterr().out
    for name, line in LINES.items():
        assert f"  {name:<11} {line}\n" in shown
    assert commands.COMMANDS.keys() == help.COMMANDS.keys()


def test_the_version_is_that_of_the_package(capsys):
    main(["--version"])
    declared = re.search(r'^version = "(.+)"', (Path(__file__).parents[2] / "pyproject.toml").read_text(), re.M).group(
        1
    )
    assert capsys.readouterr().out == f"isara_pl {declared}\n"
    assert isara_pl.__version__ == declared


def test_the_pieces_for_code_of_ones_own_are_imported_when_they_are_asked_for():
    assert isara_pl.IsaraDataModule.__module__ == "isara_pl.datamodule.datamodule"
    assert isara_pl.IsaraModule.__module__ == "isara_pl.module"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = isara_pl.nothing


def test_the_help_of_fit_shows_this_projects_options_before_lightnings(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"  --{name} ") for name in
              ("run_dir", "model.name", "data.seeds", "alpha_stopping.alpha", "ckpt_path", "checkpoint.filename", "trainer.devices")]  # fmt: skip
    assert places == sorted(places)
    assert shown.startswith("usage: isara-pl fit --config FILE")
    for option in ("data.candidates_per_outer_epoch", "model.lora.r", "alpha_stopping.alpha"):
        assert f"  --{option} " in shown
    assert "candidates that are generated in an outer epoch" in " ".join(shown.split())
    assert LINES["fit"] in shown
    assert "[applied on parse]" not in shown, "what cannot be given"
