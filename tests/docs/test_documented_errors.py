"""The errors that docs/ERRORS.md explains are those that people get, word for word."""

import re
import shutil

import pytest
import torch
from filelock import FileLock
from helpers.command_line import SEEDS_ALONE, UNMEASURED, fails
from helpers.documents import text_of
from safetensors.torch import load_file, save_file

from isara_pl.cli.main import main
from isara_pl.module import IsaraModule

# each message, from `- ` on; … stands for what differs
MESSAGES = [" ".join(found.split()) for found in re.findall(r"^- `([^`]+)`", text_of("docs/ERRORS.md"), re.MULTILINE)]


@pytest.fixture
def used(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "used")
    return f"--run_dir={tmp_path / 'used'}"


@pytest.fixture
def provoked(options, used, seeds_file, tiny_llama, tmp_path, monkeypatch, capsys, recwarn):
    """Give what someone reads who makes the mistake behind a message."""

    def fit(*more):
        return fails(["fit", *options, f"--run_dir={tmp_path / 'new'}", *more], capsys)

    def locked():
        with FileLock(tmp_path / "used/run.lock"):
            return fails(["fit", *options, used, "--ckpt_path=last"], capsys)

    def other_columns():
        (tmp_path / "mine.csv").write_text("frage,antwort\nWhy?,So.\n")
        return fit(f"--data.seeds={tmp_path / 'mine.csv'}")

    def windows_1252():
        (tmp_path / "mine.csv").write_bytes("question;answer\nTee für zwei?;Ja.\n".encode("cp1252"))
        return fit(f"--data.seeds={tmp_path / 'mine.csv'}")

    def mistyped():
        (tmp_path / "mine.csv").write_text("question,answer\nWhy?,So.\n")
        return fit(f"--data.seeds={tmp_path / 'mein.csv'}")

    def unnameable():
        monkeypatch.setattr("os.fsencode", lambda path: str(path).encode("ascii"))
        return fit("--data.seeds=sämlinge.csv")

    def all_rejected():
        filters = "--trainer.callbacks={class_path: isara_pl.callbacks.TooShort, init_args: {min_words: 1000}}"
        main(["fit", *options, UNMEASURED, f"--run_dir={tmp_path / 'new'}", filters])
        return " ".join(str(warning.message) for warning in recwarn)

    def headless():
        folder = tmp_path / "headless"
        shutil.copytree(tiny_llama, folder)
        weights = load_file(folder / "model.safetensors")
        del weights["lm_head.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return fit(f"--model.name={folder}")

    def no_memory():
        def training_step(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(IsaraModule, "training_step", training_step)
        return fit(*SEEDS_ALONE)

    return {
        "holds a run already": lambda: fails(["fit", *options, used], capsys),
        "grown under other conditions": lambda: fails(
            ["fit", *options, used, "--ckpt_path=last", "--data.demonstrations=3"], capsys
        ),
        "another process is writing": locked,
        "no question field": other_columns,
        "not UTF-8 text": windows_1252,
        "no such file or folder": mistyped,
        "has not all characters": unnameable,
        "of its items are seeds": lambda: fit(f"--data.held_out={seeds_file}"),
        "nothing to measure on": lambda: fails(
            ["validate", *options, f"--run_dir={tmp_path / 'new'}", "--data.held_out=null"], capsys
        ),
        "no model that loads here": lambda: fit("--model.name=HuggingFaceTB/SmolLM2-36OM"),
        "the weights of": headless,
        "no option is named": lambda: fit("--data.candidate_per_outer_epoch=3"),
        "nothing was trained": all_rejected,
        "memory does not suffice": no_memory,
        "nf4 needs a CUDA GPU": lambda: fit("--model.quantization=nf4"),
    }


@pytest.mark.parametrize("message", MESSAGES)
def test_an_error_that_is_explained_reads_as_it_is_quoted(message, provoked):
    (provoke,) = [provoke for words, provoke in provoked.items() if words in message]
    words = map(re.escape, message.split("…"))
    assert re.search(".*".join(words), " ".join(provoke().split()))


def test_every_mistake_that_is_tried_is_explained(provoked):
    assert len(MESSAGES) == len(provoked)
