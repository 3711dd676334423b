"""What the model answers to held-out questions, to be read beside its figures."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from isara_pl.callbacks.evaluation import Line, data_of, measuring
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.datamodule.growing import fits_window, text_generator
from isara_pl.datamodule.pooled_data import outer_epoch_of_weights, weights_of
from isara_pl.errors import InputError
from isara_pl.evaluation.prompting import ItemPrompts
from isara_pl.growth.samples import Sample
from isara_pl.results.answers import NAME, nll_changes
from isara_pl.results.items import FOLDER, read_results, write_results
from isara_pl.run.folder import run_folder
from isara_pl.run.randomness import derive_seed
from isara_pl.run.stages import stage
from isara_pl.run.trainer import Processes

WORST = 3  # of the questions: those whose given answers training has made least likely


class HeldOutAnswers(Callback):
    """Writes what the model answers to some held-out questions, as no figure shows whether an answer is right.

    The pretrained model and that of each outer epoch answer greedily. The questions are drawn by the run's seed; where
    an evaluation of the held-out pairs runs before this, the last 3 of them are those whose given answers training has
    made least likely. They are in `evaluation/held_out_answers.jsonl`, in the report, and some in the terminal.

    Args:
        questions: How many are answered; 0 for none.
        max_new_tokens: Most tokens of an answer.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(self, questions: int = 10, max_new_tokens: int = 64) -> None:
        for option, value, least in (("questions", questions, 0), ("max_new_tokens", max_new_tokens, 1)):
            if value < least:
                raise InputError(f"HeldOutAnswers: {option} is {value}; allowed: at least {least}")
        self.questions = questions
        self.max_new_tokens = max_new_tokens

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse another data module."""
        data_of(trainer, self)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the model answer, unless this is Lightning's sanity check."""
        if not trainer.sanity_checking:
            self._answer(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the model answer."""
        self._answer(trainer, pl_module)

    def _answer(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the model answer, and the pretrained one what it has not answered yet."""
        data = data_of(trainer, self)
        if not self.questions or not data.held_out:
            return
        run_dir = run_folder(trainer)  # of the first process alone, which tells the others
        known = data.processes.from_first(lambda: _known(trainer, pl_module, data, run_dir))
        if known is None:
            return
        items = self._chosen(data, known.changes)
        with stage(NAME, data.measured_outer_epoch, total=len(items)), measuring(trainer, pl_module):
            lines = self._lines(trainer, pl_module, data, items, weights_of(pl_module))
            asked = {line["id"] for line in known.before}
            unasked = [item for item in items if item.id not in asked] if known.outer_epoch else []
            pretrained = getattr(pl_module, "pretrained", None)  # a module of one's own need not have it
            more: list[Line] = []
            if unasked and pretrained is not None:
                weights = known.before[0].get("weights") if known.before else None
                with pretrained():
                    more = self._lines(trainer, pl_module, data, unasked, weights)
        if run_dir is not None:
            if more:
                write_results(run_dir, NAME, 0, [*known.before, *more])
            changed = [{**line, "nll_change": known.changes.get(line["question"])} for line in lines]
            write_results(run_dir, NAME, known.outer_epoch, changed)

    def _chosen(self, data: IsaraDataModule, changes: Mapping[str, float]) -> list[Sample]:
        """Give the questions: drawn ones, and those that training made worst, where that is known."""
        count = min(self.questions, len(data.held_out))
        drawn = random.Random(derive_seed(data.seed, NAME)).sample(data.held_out, count)
        risen = [item for item in data.held_out if changes.get(item.question, 0.0) > 0]
        worst = sorted(risen, key=lambda item: -changes[item.question])[: min(WORST, count)]
        others = [item for item in drawn if item not in worst]
        return [*others[: count - len(worst)], *worst]

    def _lines(
        self,
        trainer: Trainer,
        module: LightningModule,
        data: IsaraDataModule,
        items: Sequence[Sample],
        weights: str | None,
    ) -> list[Line]:
        prompts = ItemPrompts(
            data.prompt_format,
            {item.id: [] for item in items},
            text_generator(module, type(self).__name__),
            fits_window(module, data.tokenizer),
            derive_seed(data.seed, "evaluation", NAME),
        )
        processes = Processes.computing(trainer)
        answers = processes.gathered(lambda: prompts.answers_and_ends(processes.share(items), self.max_new_tokens))
        return [
            {"id": item.id, "question": item.question, "given": item.answer, "weights": weights}
            | {"answer": answer, "finished": finished}
            for item, (answer, finished) in zip(items, answers, strict=True)
        ]


@dataclass(frozen=True)
class _Known:
    """What the run folder holds of the model that is asked, and of the pretrained one."""

    outer_epoch: int
    changes: Mapping[str, float]  # of the NLL of each question's given answer, by training
    before: Sequence[Line]  # what the pretrained model has answered


def _known(trainer: Trainer, module: LightningModule, data: IsaraDataModule, run_dir: Path | None) -> _Known | None:
    """Read it; None where answers of these weights belong in no file."""
    outer_epoch = outer_epoch_of_weights(trainer, module, data)
    if run_dir is None or outer_epoch is None:
        return None
    path = run_dir / FOLDER / f"{NAME}.jsonl"
    before = [line for line in read_results(path) if line["outer_epoch"] == 0] if path.exists() else []
    return _Known(outer_epoch, nll_changes(run_dir, outer_epoch) if outer_epoch else {}, before)
