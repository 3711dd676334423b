"""What all evaluations share: when they run, their prompts, and where their figures go."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor

from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.datamodule.growing import fits_window, text_generator
from isara_pl.datamodule.pooled_data import outer_epoch_of_weights, weights_of
from isara_pl.errors import InputError
from isara_pl.evaluation.prompting import AnswerFormat, ItemPrompts
from isara_pl.growth.retrieval import Context, Demonstrations
from isara_pl.growth.samples import Sample
from isara_pl.module import IsaraModule
from isara_pl.results.answers import NAME as ANSWERS
from isara_pl.results.items import write_results
from isara_pl.run.folder import run_folder
from isara_pl.run.notices import rank_zero_warn
from isara_pl.run.randomness import derive_seed
from isara_pl.run.stages import stage
from isara_pl.run.trainer import Processes, callbacks_of, is_trial

Line = dict[str, Any]
# other files, and the ids of the held-out pairs
RESERVED = ("diversity", "contamination", ANSWERS, "held-out")


@runtime_checkable
class ContaminationSource(Protocol):
    """A callback that knows which evaluation items the training data hold."""

    def contaminated(self, trainer: Trainer, demonstrations: Mapping[str, Sequence[Sample]]) -> set[str] | None:
        """Give the ids of the items that the measured model has seen, in training or in the item's own prompt.

        None where it is not known what the model was trained on. `demonstrations` are those of each item.
        """


class Measurement(Callback, ABC):
    """Runs `evaluate` at the end of every validation and test."""

    name: str

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse two that would write into one file and log under one name, and a module that is never validated."""
        for other in callbacks_of(trainer):
            if isinstance(other, Measurement) and other is not self and other.name == self.name:
                raise InputError(
                    f"{type(self).__name__} and {type(other).__name__} both have the name {self.name!r}, under which "
                    "they would log and write. Give one of them another `name`"
                )
        if type(pl_module).validation_step is LightningModule.validation_step:
            raise InputError(
                f"{type(self).__name__} runs at the end of a validation, but {type(pl_module).__name__} has no "
                "validation_step, without which Lightning validates nothing. Give it one that does nothing"
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, unless this is Lightning's sanity check."""
        if not trainer.sanity_checking:
            self.evaluate(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        self.evaluate(trainer, pl_module)

    @abstractmethod
    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the current model, log the figures and write what belongs in the run folder."""


class Evaluation(Measurement):
    """Measures on a set of items at the end of every validation and test.

    That is before the first training, after each outer epoch, and in `validate` and `test`. The figures
    are logged under their names, for ModelCheckpoint and EarlyStopping to monitor; where a
    ContaminationGuard runs, also over the items that training data do not hold, with the ending `_clean`.
    Every item's own figures go to `evaluation/<name>.jsonl` in the run folder, unless the model is measured
    within an outer epoch.

    Args:
        default_name: Name of the file; figures have no prefix under it.
        name: Another name, which is then also the prefix of the figures; None takes the default.
        items: File of the items; None where there is none.
        demonstrations: Examples in the prompt, taken from the seeds.
        context: `knn` takes the nearest seeds, `random` draws them.
        batch_size: Rows that are scored at once.

    Raises:
        InputError: If a number is out of range, or the file cannot be used.
    """

    def __init__(
        self,
        default_name: str,
        name: str | None,
        items: str | None,
        demonstrations: int,
        context: Context,
        batch_size: int = 1,
    ) -> None:
        kind = type(self).__name__
        for option, value, least in (("demonstrations", demonstrations, 0), ("batch_size", batch_size, 1)):
            if value < least:
                raise InputError(f"{kind}: {option} is {value}; allowed: at least {least}")
        check_choice(f"{kind}: context", context, Context)
        self.name = name or default_name
        if not self.name.replace("_", "").replace("-", "").isalnum() or self.name in RESERVED:
            raise InputError(
                f"{kind}: name is {name!r}; allowed: letters, digits, - and _ (it names a file), "
                f"but not {' or '.join(RESERVED)}"
            )
        self.prefix = f"{name}_" if name and name != default_name else ""
        self.demonstrations = demonstrations
        self.context = context
        self.batch_size = batch_size
        # read now: a bad line is told before any model is loaded
        self.own_items = self.read_items(items) if items else []

    # -- what an evaluation is made of

    @abstractmethod
    def read_items(self, items: str) -> list[Sample]:
        """Read the file of items."""

    @abstractmethod
    def measure(self, module: LightningModule, items: Sequence[Sample], prompts: ItemPrompts) -> list[Line]:
        """Give the figures of each item, and whatever else belongs in its line, in the items' order.

        Where there are several processes, each is asked for its own part of the items.
        """

    @abstractmethod
    def figures(self, lines: Sequence[Line]) -> Mapping[str, Tensor]:
        """Give the figures over items; the lines are those of `measure`.

        Every process is asked for them with all lines: call a function in here, not a torchmetric, which would add
        up over processes.
        """

    def items(self, data: IsaraDataModule) -> list[Sample]:
        """Give the items that are measured on."""
        return self.own_items

    def others(self, data: IsaraDataModule, items: Sequence[Sample]) -> Mapping[str, Sample]:
        """Give, by the ids of those items that have a question-blind control, the item whose question is asked there.

        Every process is asked with all items.
        """
        return {}

    def steps(self, items: Sequence[Sample], others: Mapping[str, Sample]) -> int:
        """Give how many steps `measure` takes for items, for those who watch its progress."""
        return len(items)

    def check_module(self, module: LightningModule) -> None:
        """Refuse a module that lacks what `measure` needs: asked before anything is grown, where there are items."""
        text_generator(module, type(self).__name__)

    def conditions(self) -> dict[str, str]:
        """Give what figures depend on beside the model: only under equal ones can they be compared."""
        return {}

    def prompt_format(self, data: IsaraDataModule, module: LightningModule) -> AnswerFormat:
        """Give how items become text: as pairs that are trained on."""
        return data.prompt_format

    # -- when it runs

    def embeds(self, fits: bool) -> bool:
        """Whether it looks for the nearest seeds."""
        return self.demonstrations > 0 and self.context == "knn"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a second one of the same name, a module that cannot be measured, and items that are seeds."""
        super().setup(trainer, pl_module, stage)
        data = data_of(trainer, self)
        if self.items(data):
            self.check_module(pl_module)
        data.check_overlap(self.own_items, type(self).__name__)

    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the current model, log the figures and write the lines."""
        data = data_of(trainer, self)
        items = self.items(data)
        if is_trial(trainer):
            items = items[:1]
        if not items:
            return
        began = time.perf_counter()
        computing = Processes.computing(trainer)
        others = self.others(data, items)
        steps = self.steps(computing.share(items), others)
        with stage(self.name, data.measured_outer_epoch, total=steps):
            prompts = self._prompts(data, pl_module, items, others)
            with measuring(trainer, pl_module):
                measured = computing.gathered(lambda: self._share(computing, pl_module, items, prompts))
        demonstrations = {item.id: shown for item, (_, shown) in zip(items, measured, strict=True)}
        guards = [callback for callback in callbacks_of(trainer) if isinstance(callback, ContaminationSource)]
        # the first process alone has filtered, and knows what touches an item
        seen = data.processes.from_first(lambda: guards[0].contaminated(trainer, demonstrations) if guards else None)
        seeds, weights = data.seeds_hash, weights_of(pl_module)
        conditions = {"prompt_format": data.prompt_format_name, **self.conditions()}
        lines = [
            {
                "id": item.id,
                "question": item.question,
                "category": item.category,
                "weights": weights,
                "seeds": seeds,
                "conditions": conditions,
                "demonstrations": [sample.id for sample in shown],
                "contaminated": None if seen is None else item.id in seen,
                **line,
            }
            for item, (line, shown) in zip(items, measured, strict=True)
        ]
        figures = self.figures(lines)
        self._log(pl_module, figures, len(lines))
        if seen is not None:
            clean = [line for line in lines if not line["contaminated"]]
            # NaN where no clean item has one: else that of the outer epoch before would stay
            of_clean = {name: torch.tensor(math.nan) for name in figures} | {**(self.figures(clean) if clean else {})}
            self._log(pl_module, of_clean, max(len(clean), 1), "_clean")
        run_dir, outer_epoch = run_folder(trainer), outer_epoch_of_weights(trainer, pl_module, data)
        if run_dir is not None and outer_epoch is not None:
            write_results(run_dir, self.name, outer_epoch, lines)
        rank_zero_info(f"{self.name}: {len(items)} items in {time.perf_counter() - began:.0f} s")

    def _share(
        self, processes: Processes, module: LightningModule, items: Sequence[Sample], prompts: ItemPrompts
    ) -> list[tuple[Line, list[Sample]]]:
        """Measure this process's part of the items: each one's line, and the demonstrations in its prompt."""
        share = processes.share(items)
        lines = self.measure(module, share, prompts) if share else []
        return [(line, prompts.demonstrations[item.id]) for item, line in zip(share, lines, strict=True)]

    def _log(self, module: LightningModule, figures: Mapping[str, Tensor], items: int, ending: str = "") -> None:
        for name, value in figures.items():
            if name.endswith("not_finite") and value and not ending:
                rank_zero_warn(f"{self.name}: {int(value)} items had a score that is not finite; it is never rewarded")
            figure = value.float().to(module.device)  # several GPUs average only what lies on them
            module.log(f"{self.prefix}{name}{ending}", figure, batch_size=items, sync_dist=True)

    def _prompts(
        self, data: IsaraDataModule, module: LightningModule, items: Sequence[Sample], others: Mapping[str, Sample]
    ) -> ItemPrompts:
        generator = text_generator(module, type(self).__name__)
        demonstrations = Demonstrations(data.seeds, data.encoder, self.demonstrations, self.context, data.seed)
        found = zip(items, demonstrations.of(items), strict=True)
        return ItemPrompts(
            self.prompt_format(data, module),
            {item.id: context for item, context in found},
            generator,
            fits_window(module, data.tokenizer),
            derive_seed(data.seed, "evaluation", self.name),
            others,
        )


def measuring(trainer: Trainer, module: LightningModule) -> AbstractContextManager[None]:
    """Compute in the precision of held-out figures inside the block: IsaraModule's own, else the trainer's."""
    return module.measuring() if isinstance(module, IsaraModule) else trainer.precision_plugin.forward_context()


def check_choice(option: str, value: str, allowed: Any) -> None:
    """Refuse a value that is none of a Literal's: the command line checks that, Python does not."""
    if value not in get_args(allowed):
        raise InputError(f"{option} is {value!r}; allowed: {' or '.join(get_args(allowed))}")


def data_of(trainer: Trainer, callback: Callback) -> IsaraDataModule:
    """Give the trainer's data module, or refuse another one with an InputError."""
    data = getattr(trainer, "datamodule", None)  # Lightning sets it without declaring it
    if not isinstance(data, IsaraDataModule):
        raise InputError(f"{type(callback).__name__} needs IsaraDataModule")
    return data
