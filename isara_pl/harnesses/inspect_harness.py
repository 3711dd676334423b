"""inspect_ai on a model in a folder, which lies there as long as it is measured."""

import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from isara_pl.errors import InputError, did_you_mean_path, first_line
from isara_pl.export.merged_model import PlainModel
from isara_pl.harnesses.scores import Item, Scored, of_items

NAME = "inspect"
_SPREADS = ("stderr", "bootstrap_stderr", "std", "var")  # metrics of inspect that are no figures of a model


class Inspect:
    """inspect_ai with its provider of plain transformers; answers are the likeliest ones.

    Args:
        tasks: Tasks as inspect names them: FILE.py, FILE.py@TASK or PACKAGE/TASK.
        limit: Items of each task; None takes all.
        batch_size: Prompts at once.
        logs: Folder for inspect's own logs, of which each model's come there when all are whole.

    Raises:
        InputError: If inspect_ai is not installed, or there is no such file.
    """

    def __init__(self, tasks: Sequence[str], limit: int | None, batch_size: int, logs: Path) -> None:
        if find_spec("inspect_ai") is None:
            raise InputError("--with inspect: the package inspect_ai is missing; pip install inspect-ai")
        for task in tasks:
            file = task.partition("@")[0]
            if file.endswith(".py") and not Path(file).is_file():
                raise InputError(f"--tasks: no such file: {file}.{did_you_mean_path(file)}")
        # inspect takes no whole paths
        self._tasks = [os.path.relpath(task) if Path(task).is_absolute() else task for task in tasks]
        self._limit, self._batch_size, self._logs = limit, batch_size, logs

    def measure(self, model: PlainModel) -> list[Scored]:
        """Give every figure of every task.

        Raises:
            InputError: If a task cannot be measured.
        """
        import inspect_ai  # not among the extras: it wants other versions of what ours are tested with
        from inspect_ai.model import get_model

        with TemporaryDirectory(prefix="isara_pl-") as folder:
            model.save(Path(folder, "model"))
            at_device = str(model.model.device)
            try:
                done: list[Any] = inspect_ai.eval(
                    [*self._tasks],
                    model=get_model(
                        "hf/isara_pl", model_path=f"{folder}/model", device=at_device, do_sample=False, memoize=False
                    ),
                    limit=self._limit,
                    max_connections=self._batch_size,
                    log_dir=f"{folder}/logs",
                    display="plain",
                    ctl_server=False,
                )
            except Exception as error:  # of people's own tasks there are errors of many types
                raise InputError(
                    f"--tasks: inspect could not measure {', '.join(self._tasks)} ({first_line(error)})"
                ) from error
            for log in done:
                if log.status == "cancelled":  # as inspect ends at Ctrl-C
                    raise KeyboardInterrupt
                if log.status != "success":
                    reason = log.error.message if log.error else log.status
                    raise InputError(f"--tasks: inspect could not measure {log.eval.task} ({reason})")
            found = [scored for log in done for scored in _scored(log)]  # which reads samples from the logs
            self._logs.mkdir(parents=True, exist_ok=True)
            for path in sorted(Path(folder, "logs").iterdir()):
                shutil.move(path, self._logs / path.name)
        return found


def _scored(log: Any) -> Iterator[Scored]:
    from inspect_ai.scorer import value_to_float

    as_number = value_to_float()
    for score in log.results.scores:
        measured = [(sample, sample.scores[score.name].value) for sample in log.samples if score.name in sample.scores]
        items = [
            Item(f"{sample.id}-{sample.epoch}", _question(sample.input), as_number(value))
            for sample, value in measured
            if isinstance(value, str | int | float)
        ]
        for metric in score.metrics.values():
            if metric.name in _SPREADS:
                continue
            yield Scored(
                harness=NAME,
                task=log.eval.task,
                metric=f"{score.name} {metric.name}",
                value=float(metric.value),
                higher_is_better=True,  # inspect does not tell
                count=len(measured),
                items=of_items(metric.value, items if len(items) == len(measured) else []),
                conditions={"harness": f"{NAME} {version('inspect_ai')}", "task_version": str(log.eval.task_version)},
            )


def _question(given: Any) -> str:
    return given if isinstance(given, str) else "\n".join(message.text for message in given)
