"""Progress bars of growing and measuring, on a terminal and elsewhere."""

import fcntl
import io
import logging
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import rich
from helpers.command_line import fit
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.demos.boring_classes import BoringModel

from isara_pl.callbacks import stage_progress
from isara_pl.callbacks.stage_progress import (
    SHOWN_BY_LIGHTNING,
    Growing,
    Line,
    StageProgress,
    StageWatch,
    log_line,
    running_lines,
)
from isara_pl.growth.pool import Verdict
from isara_pl.run.stages import Stage, count, stage

SHORT = ["--data.epochs_per_outer_epoch=1", "--trainer.enable_progress_bar=true"]
TAKES_THE_SECOND = "--trainer.callbacks+=test_progress.TakesTheSecond"
LOG = logging.getLogger("lightning.pytorch")
BARS = {
    "rich": [],  # Lightning's choice where rich is installed
    "tqdm": ["--trainer.callbacks+=lightning.pytorch.callbacks.TQDMProgressBar"],
}


class TakesTheSecond(Callback):
    """Rejects the whole second outer epoch, so that the α rule ends the run."""

    def verdict(self, candidate, pool):
        return Verdict(0.0, "second" if candidate.outer_epoch == 2 else None)


@pytest.fixture(autouse=True)
def _drawn_at_every_end(monkeypatch):
    """Draw whenever a stage ends, and nothing from the thread: what is drawn then depends on no clock."""
    monkeypatch.setattr(stage_progress, "TICK", 3600)
    monkeypatch.setattr(stage_progress, "MOMENT", 0)
    monkeypatch.setattr(stage_progress, "BETWEEN_LOGS", 3600)
    forget = StageWatch.on_stage_end

    def draw_and_forget(watch: StageWatch, stage: Stage) -> None:
        watch.draw()
        forget(watch, stage)

    monkeypatch.setattr(StageWatch, "on_stage_end", draw_and_forget)


class Terminal:
    """A terminal of 120 columns in place of stdout, stderr and the log, inside the block."""

    def __enter__(self) -> "Terminal":
        self.own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.stream, self.seen = os.fdopen(theirs, "w"), bytearray()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("TERM", "xterm-256color")
        self.patch.setenv("COLUMNS", "120")
        self.patch.setattr(rich, "_console", None)
        self.patch.setattr(sys, "stdout", self.stream)
        self.patch.setattr(sys, "stderr", self.stream)
        self.patch.setattr(LOG, "handlers", [logging.StreamHandler(self.stream)])
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()
        self.stream.write("\0")
        self.stream.close()
        self.reader.join()
        os.close(self.own)
        self.written = self.seen.decode().replace("\0", "")

    def _read(self) -> None:
        while b"\0" not in self.seen:
            self.seen.extend(os.read(self.own, 65536))


def screen(written: str) -> list[str]:
    """Give the lines that a terminal shows in the end."""
    lines, row, column = [""], 0, 0
    for escape, letter in re.findall(r"\x1b\[([0-9;?]*[A-Za-z])|(.)", written, re.DOTALL):
        if letter == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif letter == "\r":
            column = 0
        elif letter:
            lines[row] = lines[row].ljust(column)[:column] + letter + lines[row][column + 1 :]
            column += 1
        elif escape.endswith("A"):
            row -= int(escape[:-1] or 1)
        elif escape == "2K":
            lines[row] = ""
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("kind", BARS)
def test_a_terminal_shows_stages_counts_accepted_speed_and_time_left(options, tmp_path, kind):
    with Terminal() as terminal:
        fit(tmp_path / "run", options, *SHORT, *BARS[kind], TAKES_THE_SECOND)
    shown = screen(terminal.written)
    lines = [
        "outer epoch 1: 4/6 candidates, 4 accepted",
        r"truthfulness: 3 items in \d+ s",
        "outer epoch 2: novelty 0.000, below α = 0.1: not trained on",
        "  nothing taken by NearDuplicate",
    ]  # whole ones, in spite of the bars
    if kind == "tqdm":
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.written)
        bar, left = r": +\d+%\|.{5,}\| ", r" \[00:\d\d<00:\d\d"
        assert re.search(rf"outer epoch 1: candidates{bar}4/6{left}.*\b[1-4] accepted", plain)
        for name, total in (("questions", 4), ("answers", 2)):
            assert re.search(rf"{name}{bar}{total}/{total}{left}.* [\d,]+ tokens/s", plain)
        assert re.search(rf"filtering{bar}4/4{left}", plain)
        assert re.search(rf"embedding{bar}8/8{left}", plain)
        assert re.search(rf"pretrained: truthfulness{bar}9/9{left}.*tokens/s", plain)
        assert re.search(rf"outer epoch 1: truthfulness{bar}9/9{left}.*tokens/s", plain)
        gone = "outer epoch 1: candidates|(questions|answers|filtering): "
        assert not [line for line in shown if re.search(gone, line)]
    else:  # rich's display is Lightning's own
        speed, left = r", [\d,]+ tokens/s", r"; 0:00:\d\d left"
        lines += [
            rf"outer epoch 1: candidates 4/6, [1-4] accepted; questions 2/2{speed}{left}",
            rf"outer epoch 1: candidates 4/6, [1-4] accepted; answers 2/2{speed}{left}",
            rf"outer epoch 1: candidates 0/6, 0 accepted; filtering 4/4{left}",
            "outer epoch 1: candidates 0/6, 0 accepted; embedding 8/8",
            rf"pretrained: truthfulness 9/9{speed}{left}",
            rf"outer epoch 1: truthfulness 9/9{speed}{left}",
        ]
    for line in lines:
        assert [one for one in shown if re.fullmatch(line, one)], line


def test_the_bar_of_the_command_line_counts_outer_epochs(options, tmp_path):
    with Terminal() as terminal:
        fit(tmp_path / "run", options, "--trainer.enable_progress_bar=null", "--data.held_out=null")
    for outer_epoch in (1, 2):
        for epoch in (1, 2):
            assert f"outer epoch {outer_epoch} of 2, pass {epoch} of 2: " in terminal.written
    assert "Epoch" not in terminal.written
    assert "max_epochs" not in terminal.written


def test_without_a_terminal_there_are_lines_and_no_bars(options, tmp_path, capfd, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(LOG, "handlers", [logging.StreamHandler(log)])
    fit(tmp_path / "run", options, *SHORT, "--data.outer_epochs=1")
    said = log.getvalue()
    for line in (
        r"outer epoch 1: candidates 4/6, [1-4] accepted; questions 2/2, [\d,]+ tokens/s; 0:00:\d\d left",
        r"pretrained: truthfulness 9/9, [\d,]+ tokens/s; 0:00:00 left",
        r"outer epoch 1: 4/6 candidates, 4 accepted",
    ):
        assert re.search(f"^{line}$", said, re.MULTILINE)
    everything = said + "".join(capfd.readouterr())
    assert "\r" not in everything
    assert not re.search(r"(candidates|questions|truthfulness)\S* +[━╸]", everything)


class Failing(BoringModel):
    """Generates in its training step, and fails there."""

    def training_step(self, batch, batch_idx):
        with stage("answers", outer_epoch=3, total=2):
            count(done=1, generated_tokens=5)
            raise RuntimeError("failed")


def trainer_with(folder: Path, *callbacks: Callback, **more: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", max_steps=1, callbacks=[*callbacks], **quiet, **more)


@pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar])
def test_an_error_in_a_stage_leaves_no_bar_and_later_stages_are_not_shown(tmp_path, bar):
    with Terminal() as terminal:
        with pytest.raises(RuntimeError, match="failed"):
            trainer_with(tmp_path, StageProgress(), bar()).fit(Failing())
        with stage("questions", total=2):
            count(done=1)
        assert LOG.handlers[0].stream is terminal.stream
    assert not [thread for thread in threading.enumerate() if thread.name == "stage-watch"]
    assert "outer epoch 3: answers" in terminal.written
    assert "questions" not in terminal.written
    assert ("outer epoch 3: answers" in "".join(screen(terminal.written))) == (bar is RichProgressBar)  # a line stays
    if bar is RichProgressBar:
        assert terminal.written.rindex("\x1b[?25h") > terminal.written.rindex("\x1b[?25l")  # the cursor is there again


@pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar])
def test_no_bar_is_drawn_into_a_file(tmp_path, capfd, bar):
    progress = StageProgress()
    trainer = trainer_with(tmp_path, progress, bar())
    progress.setup(trainer, BoringModel(), "fit")
    with stage("questions", total=2):
        count(done=1)
    progress.teardown(trainer, BoringModel(), "fit")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("which", ["another process", "bar is switched off", "no bar"])
def test_only_the_first_process_shows_anything_and_without_a_bar_it_is_lines(tmp_path, monkeypatch, which):
    if which == "another process":
        monkeypatch.setattr(Trainer, "is_global_zero", False)
    progress, bars = StageProgress(), [TQDMProgressBar(refresh_rate=int(which == "another process"))]
    with Terminal() as terminal:
        trainer = trainer_with(tmp_path, progress, *bars[: which != "no bar"], enable_progress_bar=which != "no bar")
        progress.setup(trainer, BoringModel(), "fit")
        for name in ("questions", "training"):
            with stage(name, total=2):
                count(done=1)
        progress.teardown(trainer, BoringModel(), "fit")
    lines = [line for line in screen(terminal.written) if line.startswith("pretrained")]
    shown = [f"pretrained: {name} 1/2; 0:00:00 left" for name in ("questions", "training")]
    assert lines == ([] if which == "another process" else shown)


class Shown:
    """A display that remembers the names that it shows."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.anything = threading.Event()

    def show(self, lines: Sequence[Line]) -> None:
        self.names = [line.name for line in lines]
        self.anything.set()


def test_a_stage_that_counts_nothing_is_shown_as_well():
    watch = StageWatch((shown := Shown()).show, seconds=0.001)
    watch.start()
    with stage("embedding"):
        assert shown.anything.wait(60)
        assert shown.names == ["pretrained: embedding"]
    watch.stop()
    assert shown.names == []


def test_short_stages_and_those_of_lightning_do_not_flicker(monkeypatch):
    watch = StageWatch((shown := Shown()).show, 3600, SHOWN_BY_LIGHTNING)
    watch.start()
    with stage("validation"), stage("truthfulness", outer_epoch=2):
        with stage("answers"):
            watch.draw()
        assert shown.names == ["outer epoch 2: truthfulness", "answers"]
        watch.draw()
        assert shown.names == ["outer epoch 2: truthfulness", "answers"]  # until another one takes its place
        with stage("judging"):
            watch.draw()
            assert shown.names == ["outer epoch 2: truthfulness", "judging"]
    monkeypatch.setattr(stage_progress, "MOMENT", 3600)
    with stage("embedding"):
        watch.draw()
        assert shown.names == []
    watch.stop()


def test_the_time_left_is_that_of_the_whole_growth():
    growth, answers = Stage("growth", 2, total=24, done=8), Stage("answers", 2, total=4, done=2, generated_tokens=60)
    # two processes: of the 16 candidates that are left this one has half, 16 texts; 6 of their texts are there
    growing = Growing(judged_before=8, accepted=13, processes=2, texts=4)
    lines = running_lines({growth: 100.0, answers: 122.0}, growing, now=128.0)
    assert lines[0].seconds_left == pytest.approx(28.0 / 14 * (16 - 6))
    assert log_line(lines) == ("outer epoch 2: candidates 16/32, 13 accepted; answers 2/4, 10 tokens/s; 0:00:20 left")
