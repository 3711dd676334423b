"""What every stage of a run takes, as a file."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from isara_pl.callbacks.evaluation import data_of
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.datamodule.growing import GrowthCallback
from isara_pl.errors import InputError
from isara_pl.growth.outer_epoch import Growth
from isara_pl.models.tokens import encode_continuation, encode_prompt
from isara_pl.module import IsaraModule
from isara_pl.results.ledger import (
    ALL,
    FILE,
    TRAINING,
    Gain,
    LedgerRow,
    Usage,
    Usages,
    added,
    ledger_rows,
    ledger_text,
    read_ledger,
    taken_and_gained,
)
from isara_pl.run.files import write_whole
from isara_pl.run.folder import run_folder
from isara_pl.run.stages import Stage, StageListener, count, listen, stage, unlisten
from isara_pl.run.trainer import Processes, finished_outer_epoch

LOGGED = ("wall_seconds", "flops", "cost", "seconds_per_accepted", "cost_per_accepted", "break_even_queries")


class Ledger(GrowthCallback, StageListener):
    """Writes `ledger.csv` to the run folder: what each stage of each outer epoch took.

    Columns: `outer_epoch` (0 is measuring the pretrained model), `stage` (`questions`, `answers`, `embedding`,
    `filtering`, `scoring` of candidates by a filter's model, `growth` for the rest of growing, `teaching` where the
    teacher is asked, `training`, `validation`, every evaluation by its name, `judging`, `loading` of the encoder, and
    `report`), `wall_seconds`, `cpu_seconds`,
    `prompt_tokens`, `generated_tokens`, `flops`, `peak_memory_bytes`, `samples`, `samples_per_second` and `cost`. The
    row `all` of an outer epoch has, beside the sums, `accepted`, `seconds_per_accepted`, `flops_per_accepted` and
    `cost_per_accepted` (of growing alone), `flops_saved_per_query` (what a question takes less without demonstrations
    in its prompt), `break_even_queries`: the number of questions from which on growing, teaching and training so far
    took fewer FLOPs than those demonstrations, and `engine_gap`, by how much a log-probability of external servers
    differed from ours. Written after every batch of candidates, every epoch and every
    measurement; a resumed run goes on counting, so what was done twice counts twice. The report at the end of a run,
    which shows the ledger, is not in it. Of several processes, seconds are those of the slowest and the rest is added
    up; each embeds for itself. While this listens, torch's own peak of GPU memory is reset with every stage.

    Args:
        price_per_hour: What an hour of the machine costs, in any currency; null leaves the costs empty.

    Raises:
        InputError: If the price is below 0.
    """

    def __init__(self, price_per_hour: float | None = None) -> None:
        if price_per_hour is not None and not price_per_hour >= 0:
            raise InputError(f"ledger.price_per_hour is {price_per_hour}; allowed: at least 0")
        self.price_per_hour = price_per_hour
        self._before: Usages = {}
        self._here: Usages = {}
        self._gains: dict[int, Gain] = {}
        self._training, self._validation = ExitStack(), ExitStack()

    # -- what stages take

    def on_stage_end(self, stage: Stage) -> None:
        """Add what a stage took; texts that are embedded for anything but growing belong to that."""
        name, usage = stage.name, _usage(stage)
        if name == "embedding" and stage.outer is not None and stage.outer.name != "growth":
            name, usage = stage.outer.name, replace(usage, samples=0)
        self._here = added(self._here, {(stage.outer_epoch, name): usage})

    # -- when it counts, and the stages that Lightning runs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read what earlier processes took, and listen."""
        run_dir = run_folder(trainer)
        data_of(trainer, self)  # refuses another one now, not after hours
        self._before, self._gains = taken_and_gained([] if run_dir is None else read_ledger(run_dir / FILE))
        self._here = {}
        listen(self)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more; Lightning tears nothing down after an error."""
        self._close()

    def _close(self) -> None:
        self._validation.close()  # may be inside training
        self._training.close()
        unlisten(self)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count training, unless the α rule ended this epoch."""
        if not trainer.should_stop:
            data = data_of(trainer, self)
            self._training.enter_context(stage(TRAINING, data.outer_epoch_of(trainer.current_epoch)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the pairs of a step."""
        ids = batch.get("input_ids")  # none in batches of texts
        count(done=len(batch["sample_ids" if "sample_ids" in batch else "id"]))
        count(prompt_tokens=0 if ids is None else ids.numel())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was taken so far, and log it at the end of an outer epoch."""
        self._training.close()
        data, rows = data_of(trainer, self), self._write(trainer)
        finished = finished_outer_epoch(trainer, data.epochs_per_outer_epoch)
        for row in rows if finished else []:
            if (row.outer_epoch, row.stage) == (data.outer_epoch_of(trainer.current_epoch), ALL):
                known = {name: getattr(row, name) for name in LOGGED}
                figures = {f"ledger_{name}": float(value) for name, value in known.items() if value is not None}
                for logger in trainer.loggers:
                    logger.log_metrics(figures, step=trainer.global_step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count what Lightning itself validates; evaluations inside of it count for themselves."""
        self._validation.enter_context(stage("validation", data_of(trainer, self).measured_outer_epoch))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the held-out pairs of a batch; an empty one stands for none."""
        if len(batch):
            count(done=len(batch["sample_ids"]), prompt_tokens=batch["input_ids"].numel())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what measuring took."""
        self._validation.close()
        self._write(trainer)

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end

    # -- growing

    def on_growth_batch_end(self, trainer: Trainer, judged: int, accepted: int) -> None:
        """Write what the batch took."""
        self._write(trainer)

    def on_growth_end(self, trainer: Trainer, growth: Growth) -> None:
        """Write what growing took, and what it brought."""
        data = data_of(trainer, self)
        saved = _flops_saved(data, trainer.lightning_module, growth.outer_epoch)
        module = trainer.lightning_module
        served = module.served if isinstance(module, IsaraModule) else None
        self._gains[growth.outer_epoch] = Gain(growth.accepted, saved, served.gap if served else None)
        self._write(trainer)

    def _write(self, trainer: Trainer) -> list[LedgerRow]:
        """Write the ledger of all processes, and give its rows."""
        here: Usages = {}
        for part in Processes.of(trainer).gathered(lambda: [self._here]):
            here |= {key: here[key].beside(usage) if key in here else usage for key, usage in part.items()}
        rows = ledger_rows(added(self._before, here), self._gains, self.price_per_hour)
        run_dir = run_folder(trainer)
        if run_dir is not None:
            write_whole(run_dir / FILE, ledger_text(rows))
        return rows


def _usage(stage: Stage) -> Usage:
    """Give what a finished stage took."""
    return Usage(
        wall_seconds=stage.wall_seconds,
        cpu_seconds=stage.cpu_seconds,
        prompt_tokens=stage.prompt_tokens,
        generated_tokens=stage.generated_tokens,
        flops=stage.flops,
        peak_memory_bytes=stage.peak_memory,
        samples=stage.done,
    )


def _flops_saved(data: IsaraDataModule, module: Any, outer_epoch: int) -> float | None:
    """Give what answering an accepted question takes less without its demonstrations, on average."""
    flops: Callable[[int, int], int] | None = getattr(module, "completion_flops", None)
    if flops is None or data.tokenizer is None or data.pool is None:
        return None
    known = {sample.id: sample for sample in data.pool.samples}
    saved = []
    for sample in data.pool.accepted(outer_epoch):
        shown = [known[name] for name in sample.answer_demonstrations]
        prompts = [data.prompt_format.answer_prompt(sample.question, context) for context in (shown, [])]
        long, short = (len(encode_prompt(data.tokenizer, prompt)) for prompt in prompts)
        answer = len(encode_continuation(data.tokenizer, "", data.prompt_format.answer_text(sample.answer))[1])
        saved.append(flops(long, answer) - flops(short, answer))
    return sum(saved) / len(saved) if saved else None
