"""Tells, from inside a run, which stage it is in; the product knows nothing of it.

Functions of the product and of its libraries are wrapped from outside. What is written to the run folder is written
in two halves, so that a kill finds files half-written.
"""

import builtins
import contextlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

START = "start"
ANY_MOMENT = "any moment"  # the start as well, for kills some time later
CONFIG = "config.yaml"
CONDITIONS = "conditions.json"
PRETRAINED = "measuring the pretrained model"
QUESTIONS = "question generation"
ANSWERS = "answer generation"
JUDGING = "judging"
REJECTED = "rejected.jsonl"
POOL = "pool.jsonl"
GROWN = "between growth and training"
TRAINING = "training"
VALIDATION = "validation"
EVALUATION = "evaluation files"
METRICS = "metrics.csv"
TEACHER = "teacher"
LEDGER = "ledger.csv"
REPORT = "report.html"
ADAPTER = "adapter"
CHECKPOINT = "checkpoint"
BEFORE_LAST = "between checkpoint and last.ckpt"
LAST = "last.ckpt"
LOGS = "logs"
DONE = "after the last checkpoint"

STAGES = (
    START,
    PRETRAINED,
    EVALUATION,
    METRICS,
    LEDGER,
    REPORT,
    CONFIG,
    CONDITIONS,
    QUESTIONS,
    ANSWERS,
    JUDGING,
    TEACHER,
    REJECTED,
    POOL,
    GROWN,
    TRAINING,
    CHECKPOINT,
    BEFORE_LAST,
    LAST,
    VALIDATION,
    LOGS,
    ADAPTER,
    DONE,
)
# names begin with these, without a leading dot
FILES = {
    "config.yaml": CONFIG,
    "conditions.json": CONDITIONS,
    "plan.json": CONDITIONS,
    "pool.jsonl": POOL,
    "rejected.jsonl": REJECTED,
    "metrics.csv": METRICS,
    "ledger.csv": LEDGER,
    "report.html": REPORT,
    "evaluation": EVALUATION,
    "logs": LOGS,
    "teacher": TEACHER,
    "adapter": ADAPTER,
    "checkpoints": CHECKPOINT,
}


class Watch:
    """Counts how often each stage is come to, and calls back at one of these moments.

    Args:
        run_dir: The run folder.
        stage: The stage to call back at; None for never.
        number: At which of its moments, from 1.
        reached: Called there.
    """

    def __init__(self, run_dir: Path, stage: str | None, number: int, reached: Callable[[], None]) -> None:
        self.run_dir = run_dir
        self.target = (stage, number)
        self.reached = reached
        self.counts: Counter[str] = Counter()
        self._inside: list[str] = []  # stages that forward passes and files count for
        self._written: str | None = None
        self._open = builtins.open

    def comes_to(self, stage: str | None) -> None:
        """Count a moment."""
        if stage is not None:
            self.counts[stage] += 1
            if (stage, self.counts[stage]) == self.target:
                self.reached()

    def install(self) -> None:
        """Wrap the functions that tell of the stages."""
        import safetensors.torch
        from lightning.pytorch import Trainer
        from transformers import LlamaModel

        from isara_pl.callbacks import TooShort
        from isara_pl.datamodule.datamodule import IsaraDataModule
        from isara_pl.module import IsaraModule

        self._within(IsaraModule, "generate", self._generating)
        self._within(IsaraModule, "validation_step", lambda module, *_: _measuring(module))
        self._within(IsaraModule, "training_step", lambda *_: TRAINING)
        self._within(Trainer, "save_checkpoint", lambda _, path, *__: LAST if _is_last(path) else CHECKPOINT)
        self._before(Trainer, "save_checkpoint", lambda _, path, *__: BEFORE_LAST if _is_last(path) else None)
        self._before(LlamaModel, "forward", lambda *_: self._inside[-1] if self._inside else None)
        self._before(TooShort, "verdict", lambda *_: JUDGING)
        self._after(IsaraModule, "optimizer_step", lambda *_: TRAINING)
        self._after(IsaraDataModule, "train_dataloader", _grown)
        self._after(Trainer, "fit", lambda *_: DONE)
        for owner in (os, Path):  # Python 3.10's Path keeps what os had when it was imported
            for name in ("replace", "rename"):
                self._before(owner, name, lambda _, target: self._stage_of(target))
                self._after(owner, name, lambda _, target: self._stage_of(target))
            self._after(owner, "unlink", lambda path, *_: self._stage_of(path))
        self._after(os, "fsync", lambda _: self._written)
        self._tear(safetensors.torch, "serialize_file", 1)
        for owner in (builtins, io, Path):
            self._tear_writes(owner)

    # -- stages

    def _generating(self, module: Any, prompts: list[str], *_: Any) -> str:
        if module.trainer.validating:
            return _measuring(module)
        return QUESTIONS if prompts[0].endswith("Question:") else ANSWERS

    def _stage_of(self, path: Any) -> str | None:
        """Give the stage that writes a file; None for files outside the run folder."""
        if self._inside and self._inside[-1] in (CHECKPOINT, LAST):
            return self._inside[-1]
        with contextlib.suppress(ValueError, TypeError):
            part = Path(path).relative_to(self.run_dir).parts[0].lstrip(".")
            return next((stage for name, stage in FILES.items() if part.startswith(name)), None)
        return None

    # -- wrapping

    def _before(self, owner: Any, name: str, stage: Callable[..., str | None]) -> None:
        real = getattr(owner, name)

        @wraps(real)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.comes_to(stage(*args))
            return real(*args, **kwargs)

        setattr(owner, name, watched)

    def _after(self, owner: Any, name: str, stage: Callable[..., str | None]) -> None:
        real = getattr(owner, name)

        @wraps(real)
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            self.comes_to(stage(*args))
            return result

        setattr(owner, name, watched)

    def _within(self, owner: Any, name: str, stage: Callable[..., str]) -> None:
        """Let forward passes and files inside a function count for its stage."""
        real = getattr(owner, name)

        @wraps(real)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(stage(*args))
            try:
                return real(*args, **kwargs)
            finally:
                self._inside.pop()

        setattr(owner, name, watched)

    # -- half-written files

    def _tear_writes(self, owner: Any) -> None:
        """Let files that are opened to be written take each piece in two halves."""
        real = owner.open

        @wraps(real)
        def watched(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            opened = real(file, mode, *args, **kwargs)
            stage = self._stage_of(file) if set(mode) & set("wax+") else None
            if stage is not None and "write" not in vars(opened):  # Path.open goes by io.open
                opened.write = self._in_halves(opened, stage)
            return opened

        owner.open = watched

    def _in_halves(self, file: Any, stage: str) -> Callable[[Any], int]:
        real = file.write
        pieces = itertools.count(1)

        def write(content: Any) -> int:
            half = len(content) // 2
            written: int = real(content[:half])
            piece = next(pieces)
            if piece & (piece - 1) == 0:  # 1, 2, 4, 8 ...: torch writes a checkpoint in hundreds
                file.flush()
                self.comes_to(stage)
            written += real(content[half:])
            self._written = stage
            return written

        return write

    def _tear(self, owner: Any, name: str, place: int) -> None:
        """Let a function that writes a file by itself leave half of it first; `place` is that of its path."""
        real = getattr(owner, name)

        @wraps(real)
        def watched(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            with self._open(args[place], "r+b") as file:
                content = file.read()
                file.truncate(len(content) // 2)
                self.comes_to(self._stage_of(args[place]))
                file.seek(0)
                file.write(content)
            return result

        setattr(owner, name, watched)


def _measuring(module: Any) -> str:
    return PRETRAINED if module.trainer.state.fn == "validate" else VALIDATION


def _is_last(path: Any) -> bool:
    return Path(path).name.startswith("last")


def _grown(data: Any) -> str | None:
    return GROWN if data.trainer.current_epoch % data.epochs_per_outer_epoch == 0 else None
