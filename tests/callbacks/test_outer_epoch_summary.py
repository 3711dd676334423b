"""The table after each outer epoch."""

import io
import json
import logging
import unicodedata
from pathlib import Path

import pytest
from helpers.command_line import fit, rows
from lightning.pytorch import Callback

from isara_pl.growth.pool import Verdict
from isara_pl.growth.samples import Sample
from isara_pl.report.contents import GrownOuterEpoch
from isara_pl.report.terminal import format_summary
from isara_pl.results.answers import Answered
from isara_pl.results.metrics import SHOWN


class TakesOddOnes(Callback):
    """From the second outer epoch on, rejects every other candidate."""

    def verdict(self, candidate, pool):
        odd = int(candidate.id.split("-")[1]) % 2 == 1
        return Verdict(0.0, "odd" if odd and candidate.outer_epoch > 1 else None)


@pytest.fixture
def log(monkeypatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "handlers", [logging.StreamHandler(written)])
    return written


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def block(said: str, first_line: str) -> list[str]:
    """Give the lines of a summary: the first one, and those below that are indented."""
    lines = said.splitlines()
    start = lines.index(first_line)
    end = next((place for place in range(start + 1, len(lines)) if not lines[place].startswith("  ")), len(lines))
    return lines[start:end]


def test_it_says_what_the_files_say_and_an_outer_epoch_that_alpha_ended_has_no_figures(options, tmp_path, log):
    taking = "--trainer.callbacks+=test_outer_epoch_summary.TakesOddOnes"
    run_dir = fit(tmp_path / "run", options, "--alpha_stopping.alpha=0.6", taking)
    pool, rejected = entries(run_dir / "pool.jsonl"), entries(run_dir / "rejected.jsonl")
    pretrained, first, _ = rows(run_dir)
    trained = block(log.getvalue(), "outer epoch 1: novelty 1.000, not below α = 0.6")
    ended = block(log.getvalue(), "outer epoch 2: novelty 0.500, below α = 0.6: not trained on")
    assert [line.split() for line in trained[1:4]] == [
        ["candidates", "6"],
        ["accepted", "6"],
        ["nothing", "taken", "by", "NearDuplicate,", "TakesOddOnes"],
    ]
    assert [line.split() for line in trained[-4:]] == [
        ["pretrained", "outer", "epoch", "1"],
        *[
            [*label.split(), f"{float(pretrained[name]):.3f}", f"{float(first[name]):.3f}"]
            for name, label in (("answer_nll", "answer NLL"), ("mc2", "MC2"), ("mc2_informed", "MC2 informed"))
        ],
    ]
    assert [line.split() for line in ended[1:5]] == [
        ["candidates", "6"],
        ["TakesOddOnes", f"-{len(rejected)}", "3"],
        ["accepted", "3"],
        ["nothing", "taken", "by", "NearDuplicate"],
    ]
    for outer_epoch, samples in ((1, trained[4:8]), (2, ended[5:])):
        known = {entry["id"] for entry in pool if entry["outer_epoch"] == outer_epoch}
        shown = [line.split()[0] for line in samples[::2]]
        assert len({*shown} & known) == len(shown) == 2
    answers = {line.split()[0]: line.split(maxsplit=1)[1] for line in trained[9:12]}
    asked = [entry for entry in entries(run_dir / "evaluation/held_out_answers.jsonl") if entry["outer_epoch"] == 1]
    shown = max(asked, key=lambda entry: entry["nll_change"])
    assert (trained[8].strip(), answers["given:"]) == (shown["question"], shown["given"])
    assert answers["trained:"].endswith(" …") == (not shown["finished"])
    said = log.getvalue()
    fit(run_dir, [*options, "--alpha_stopping.alpha=0.6", taking, "--ckpt_path=last"])
    assert not [line for line in log.getvalue()[len(said) :].splitlines() if line.startswith("  ")]


def test_no_text_steers_the_terminal_or_makes_the_table_long():
    texts = ["red \x1b[31mred", "two\nlines\r\nor more", "left \u202eright", "很" * 100, "x" * 1_000_000]
    samples = [Sample("1-00001", text, "\x9b2J") for text in texts[:3]] + [Sample("1-00002", *texts[3:])]
    taken = {f"Filter{number}": 1 + number for number in range(12)} | {f"Idle{number}": 0 for number in range(30)}
    figures = {0: {"answer_nll": 2.0}, 2: dict.fromkeys(SHOWN, 1.0)}
    grown = GrownOuterEpoch(2, candidates=80, accepted=2, taken=taken, trained=True)
    for chosen in (samples[:2], samples[2:]):
        answered = Answered(chosen[0].question, *(text * 2 for text in texts[:3]), 2, 0.5)
        lines = format_summary(grown, None, chosen, answered, figures, columns=80).split("\n")
        assert len(lines) <= 25
        assert all(line.isprintable() for line in lines)
        assert all(sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) <= 80 for line in lines)
    assert "7 further filters  -63   2" in "\n".join(lines)
    assert r"red \x1b[31mred" in format_summary(grown, None, samples[:1], None, {}, columns=80)
