"""lm-evaluation-harness on a model in this process."""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isara_pl.errors import InputError, did_you_mean, first_line
from isara_pl.export.merged_model import PlainModel
from isara_pl.harnesses.scores import Item, Scored, of_items
from isara_pl.run.memory import is_out_of_memory

NAME = "lm-eval"


class LmEval:
    """lm-evaluation-harness, with tasks that are looked up and loaded at once.

    Args:
        names: Tasks, groups or tags.
        folder: Folder of further tasks, as lm-eval's `--include_path`.
        few_shot: Examples in the prompt; None leaves it to the task.
        limit: Items of each task; None takes all.
        batch_size: Requests at once.
        chat_template: Whether prompts are put into the tokenizer's chat template.

    Raises:
        InputError: If lm-eval is not installed, does not know a name, or does not get a task's data.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path | None,
        few_shot: int | None,
        limit: int | None,
        batch_size: int,
        chat_template: bool,
    ) -> None:
        if find_spec("lm_eval") is None:
            raise InputError("--with lm-eval: the package lm_eval is missing; pip install 'isara_pl[lm-eval]'")
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._names, self._limit, self._batch_size = names, limit, batch_size
        self._chat_template = chat_template
        manager = _manager(names, folder)
        try:
            self._loaded: dict[str, Any] = manager.load([*names])
        except Exception as error:  # of data sets and of people's own tasks there are errors of many types
            raise InputError(
                f"--tasks: {', '.join(names)} could not be loaded ({first_line(error)}). Tasks of lm-eval take their "
                "data from the hub: get them once on a machine with a network (HF_HUB_OFFLINE unset), or give "
                "--task_folder with tasks whose data are files"
            ) from error
        for task in self._loaded["tasks"].values():  # as lm-eval's own command does
            own = task.get_config("num_fewshot")
            if own is None or (few_shot is not None and own != 0):
                task.set_config(key="num_fewshot", value=few_shot or 0)

    def measure(self, model: PlainModel) -> list[Scored]:
        """Give every figure of every task; of a group, where lm-eval has a figure, that one alone.

        Raises:
            InputError: If a task cannot be measured.
        """
        import lm_eval  # an extra
        from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
        from lm_eval.models.huggingface import HFLM

        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        for task in self._loaded["tasks"].values():  # each model is shown the same examples
            task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
        try:
            found: Any = lm_eval.evaluate(
                HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=self._batch_size),
                task_dict=self._loaded,
                limit=self._limit,
                bootstrap_iters=0,  # intervals are ours, of differences
                apply_chat_template=self._chat_template,
                fewshot_as_multiturn=self._chat_template,
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise InputError(
                    f"the memory does not suffice ({first_line(error)}). Lower --batch_size (now {self._batch_size})"
                ) from error
            raise InputError(
                f"--tasks: lm-eval could not measure {', '.join(self._names)} ({first_line(error)})"
            ) from error
        return [scored for name, leaves in self._parts(found).items() for scored in self._scored(found, name, leaves)]

    def _parts(self, found: Mapping[str, Any]) -> dict[str, list[str]]:
        """Give what is told apart, with its tasks: groups that were asked for and have a figure, and other tasks."""
        groups = {
            name: [task.task_name for task in self._loaded["groups"][name].get_all_tasks()]
            for name in self._names
            if name in found.get("groups", {})
        }
        covered = {task for tasks in groups.values() for task in tasks}
        return groups | {task: [task] for task in self._loaded["tasks"] if task not in covered}

    def _scored(self, found: Mapping[str, Any], name: str, leaves: Sequence[str]) -> Iterator[Scored]:
        samples = [(leaf, sample) for leaf in leaves for sample in found["samples"][leaf]]
        for key, value in found["results"][name].items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            measured = [(leaf, sample) for leaf, sample in samples if sample["filter"] == chosen and metric in sample]
            items = [
                Item(f"{leaf}-{sample['doc_id']:05d}", str(sample["arguments"][0][0]), float(sample[metric]))
                for leaf, sample in measured
                if isinstance(sample[metric], int | float)
            ]
            yield Scored(
                harness=NAME,
                task=name,
                metric=metric if chosen == "none" else f"{metric}, {chosen}",
                value=float(value),
                higher_is_better=found["higher_is_better"].get(name, {}).get(metric) is not False,
                count=len(measured),
                items=of_items(value, items if len(items) == len(measured) else []),
                conditions={
                    "harness": f"{NAME} {version('lm_eval')}",
                    "task_version": str(found["versions"].get(name)),
                    "few_shot": str(found["n-shot"].get(name)),
                    "chat_template": str(self._chat_template).lower(),
                },
            )


def _manager(names: Sequence[str], folder: Path | None) -> Any:
    """Give what knows the tasks by their names: those of the folder alone where they suffice."""
    from lm_eval.tasks import TaskManager

    if folder is not None:
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        if set(names) <= {*manager.all_tasks}:
            return manager
    print("looking through the tasks of lm-eval; there are thousands of files", flush=True)
    manager = TaskManager(include_path=None if folder is None else str(folder))
    for name in names:
        if name not in manager.all_tasks:
            raise InputError(
                f"--tasks: no task of lm-eval is named {name!r}.{did_you_mean(name, manager.all_tasks)} "
                "`lm-eval ls tasks` lists them; your own are found in --task_folder"
            )
    return manager
