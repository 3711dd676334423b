"""The command line: one LightningCLI, and what surrounds a run."""

import logging
import os
import signal
import sys
import threading
import warnings
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

from jsonargparse import ArgumentError
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only

from isara_pl.callbacks import (
    AdapterExport,
    AlphaStopping,
    GracefulStop,
    OuterEpochTable,
    PredictionWriter,
    RunCheckpoint,
    prediction_writer,
)
from isara_pl.callbacks.evaluation import Evaluation
from isara_pl.callbacks.outer_epoch_table import LAST, format_table, read_rows
from isara_pl.checkpoints import WholeCheckpointIO
from isara_pl.datamodule import IsaraDataModule
from isara_pl.errors import InputError, first_line, printable
from isara_pl.evaluation import compare
from isara_pl.growth.pool import is_grown
from isara_pl.loaders import HeldOutEvaluation
from isara_pl.memory import is_out_of_memory, keep_freed_memory
from isara_pl.models import fast_precision
from isara_pl.module import IsaraModule
from isara_pl.options import refuse_null
from isara_pl.processes import STARTER, end_together
from isara_pl.run_folder import CHECKPOINTS, LAST_CHECKPOINT, make_run_folder, run_folder, safe_on_disk
from isara_pl.whole_file import write_whole

DEBUG = "ISARA_PL_DEBUG"
OUT_OF_MEMORY = (
    "the memory does not suffice. Where it trained: lower data.batch_size or data.max_length, or set "
    "model.gradient_checkpointing true. Where it measured: lower an evaluation's batch_size, or set "
    "model.evaluation_precision trainer. A run that goes on needs --data.on_change continue for a changed batch or "
    "length. In a new --run_dir: model.quantization nf4, or a smaller model"
)


class RunConfig(SaveConfigCallback):
    """Writes the configuration of `fit` to `config.yaml` in the run folder."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file, before anything else of the run is written."""
        if stage == "fit" and trainer.is_global_zero:
            config = self.parser.dump(self.config, skip_unset=False)
            write_whole(Path(trainer.default_root_dir) / "config.yaml", config)


class IsaraCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` with IsaraModule and IsaraDataModule."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what belongs to a run, and link what must agree."""
        parser.add_argument(
            "--run_dir",
            type=str,
            default="runs/isara",
            help="Folder of everything that the run leaves behind.",
        )
        parser.add_lightning_class_args(AlphaStopping, "alpha_stopping")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "{epoch}",
                "checkpoint.save_last": True,
                "checkpoint.save_top_k": -1,  # adapters are small
                "checkpoint.save_on_train_epoch_end": True,
                "checkpoint.enable_version_counter": False,  # an epoch that is trained again has the same name
            }
        )
        parser.link_arguments("run_dir", "trainer.default_root_dir")
        parser.link_arguments("run_dir", "checkpoint.dirpath", compute_fn=_checkpoint_folder)
        parser.link_arguments(
            ("data.outer_epochs", "data.epochs_per_outer_epoch"), "trainer.max_epochs", compute_fn=_product
        )
        parser.link_arguments("data.epochs_per_outer_epoch", "trainer.check_val_every_n_epoch")
        parser.link_arguments("data.epochs_per_outer_epoch", "model.epochs_per_outer_epoch")
        parser.link_arguments("model.name", "data.tokenizer")
        parser.link_arguments("model.trust_remote_code", "data.trust_remote_code")
        for target in ("model.seed", "data.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=_number)
        for target in ("data.question_sampling", "data.answer_sampling", "model.prediction_sampling"):
            parser.link_arguments("data.prompt_format", f"{target}.stop_at_newline", compute_fn=_is_single_line)

    def _parse_ckpt_path(self) -> None:
        """Take no options from a checkpoint: none are kept there, config.yaml holds them."""

    def before_instantiate_classes(self) -> None:
        """Refuse null where it has no meaning, and choose a precision, if none was given, by asking the machine."""
        config = self.config[self.config.subcommand]
        for kind, name in ((IsaraModule, "model"), (IsaraDataModule, "data"), (AlphaStopping, "alpha_stopping")):
            refuse_null(kind, config[name], name)
        trainer = config.trainer
        if trainer.precision is None:
            trainer.precision, reason = fast_precision(trainer.accelerator)
            rank_zero_info(f"trainer.precision: {trainer.precision}, since {reason}")

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Let Lightning's own logger write into the run folder, and checkpoints be whole, unless others were chosen."""
        plugins = config["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            config["plugins"] = [*plugins, WholeCheckpointIO()]
        if config["logger"] is None or config["logger"] is True:
            # a new version for each start: CSVLogger empties the folder that it is given
            config["logger"] = CSVLogger(config["default_root_dir"], name="logs")
        return super()._instantiate_trainer(config, callbacks)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; refuse a missing checkpoint before anything else, and say what is safe where it did not end well."""
        self._check_checkpoint(subcommand)
        try:
            super()._run_subcommand(subcommand)
        except BaseException as error:
            stopped = isinstance(error, SystemExit) and self.trainer.interrupted  # how Lightning ends after Ctrl-C
            if stopped:
                print("interrupted", file=sys.stderr)
            if subcommand == "fit" and self.datamodule.pool is not None and self.trainer.is_global_zero:
                sys.stderr.write(safe_on_disk(Path(self.trainer.default_root_dir)))
            if stopped:
                sys.exit(self._exit_code())
            raise

    def _exit_code(self) -> int:
        """Give the shells' code for the signal that ended a fit; Ctrl-C where it was none of those held back."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it without declaring it
        stops = [callback.signal for callback in callbacks if isinstance(callback, GracefulStop)]
        return 128 + (next(filter(None, stops), None) or signal.SIGINT)

    def _check_checkpoint(self, subcommand: str) -> None:
        config = self.config[subcommand]
        if config.ckpt_path is None:
            return
        path = _last_checkpoint(config.run_dir) if config.ckpt_path == "last" else Path(config.ckpt_path)
        if config.ckpt_path == "last" and subcommand == "fit" and not path.exists():
            return  # killed before its first checkpoint: the pool on disk is all there is to continue from
        if not path.is_file():
            raise InputError(
                f"ckpt_path: no such file: {path}. Allowed: a checkpoint, or `last` for the newest of --run_dir"
            )
        if not zipfile.is_zipfile(path):
            raise InputError(f"ckpt_path: {path} is not a checkpoint, or damaged. Take another one of {path.parent}")

    def before_fit(self) -> None:
        """Refuse a used folder, and measure the pretrained model."""
        self._make_run_folder()
        config = self.config[self.config.subcommand]
        run_dir, resuming = Path(config.run_dir), config.ckpt_path is not None
        used = is_grown(run_dir) or _last_checkpoint(config.run_dir).exists()
        # Lightning goes on from the checkpoint of a requeued job by itself
        resuming = resuming or (SLURMEnvironment.detect() and any(run_dir.glob("hpc_ckpt_*.ckpt")))
        if used and not resuming and run_folder(self.trainer) is not None:
            raise InputError(
                f"{run_dir} holds a run already. Add --ckpt_path last to continue it, "
                "or choose another folder with --run_dir"
            )
        measured = 0 in read_rows(run_dir / "metrics.csv")
        if self._measures() and not measured:
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)

    def _make_run_folder(self) -> None:
        run_dir = run_folder(self.trainer)
        if run_dir is not None:
            make_run_folder(run_dir)

    def before_validate(self) -> None:
        """Refuse to measure on nothing."""
        self._make_run_folder()
        if not self._measures():
            raise InputError(
                "data.held_out: there is nothing to measure on; give a file of held-out pairs, or a callback "
                "that has items of its own, such as HarmPreferenceEvaluation"
            )

    before_test = before_validate

    def _measures(self) -> bool:
        """Whether there is anything to measure on."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it without declaring it
        return bool(self.datamodule.held_out) or any(
            bool(callback.own_items) if isinstance(callback, Evaluation) else isinstance(callback, HeldOutEvaluation)
            for callback in callbacks
        )

    def after_fit(self) -> None:
        """Show the figures and where everything lies."""
        run_dir = run_folder(self.trainer)
        if run_dir is not None:
            _show(run_dir)

    def after_validate(self) -> None:
        """Show the figures."""
        self.after_fit()

    def after_predict(self) -> None:
        """Show where the answers lie."""
        run_dir = run_folder(self.trainer)
        if run_dir is not None:
            print(f"answers: {run_dir / prediction_writer.FILE}")


def _show(run_dir: Path) -> None:
    rows = read_rows(run_dir / "metrics.csv")
    print("\n" + format_table(rows))
    print(_reading(rows) + "\n")
    for name, meaning in (
        ("adapter", "LoRA adapter, for peft.PeftModel.from_pretrained"),
        ("pool.jsonl", "seeds and accepted samples, with their lineage"),
        ("rejected.jsonl", "rejected candidates, with the filter and its figure"),
        ("metrics.csv", "the table above, with all figures"),
        ("evaluation", "the figures of every item, for `python -m isara_pl compare`"),
        ("config.yaml", "every option of this run"),
    ):
        if (run_dir / name).exists():
            print(f"{run_dir / name}: {meaning}")


def _reading(rows: dict[int, dict[str, float | int]]) -> str:
    """Say in a line or two what the table shows, also where it is not what one hoped for."""
    if not any(name not in ("outer_epoch", *LAST) for row in rows.values() for name in row):
        return "No held-out pairs were given (--data.held_out), so nothing here shows whether this run helped."
    measured = {outer_epoch: row["answer_nll"] for outer_epoch, row in rows.items() if "answer_nll" in row}
    if not measured:
        return "metrics.csv holds every figure; `python -m isara_pl compare` tells what a difference is worth."
    legend = "answer NLL: per held-out answer token, lower is better. MC2: in 0 to 1, higher is better."
    lowest = min(measured, key=lambda outer_epoch: measured[outer_epoch])
    if lowest == max(measured):
        return legend
    name = "the pretrained model" if lowest == 0 else f"outer epoch {lowest}"
    return f"{legend}\nThe answer NLL was lowest at {name}, not at the last outer epoch, whose adapter this is."


def _checkpoint_folder(run_dir: str) -> str:
    return str(Path(run_dir) / CHECKPOINTS)


def _last_checkpoint(run_dir: str) -> Path:
    return Path(_checkpoint_folder(run_dir)) / LAST_CHECKPOINT


def _product(outer_epochs: int, epochs: int) -> int:
    return outer_epochs * epochs


def _number(seed: bool | int) -> int:
    return 0 if isinstance(seed, bool) else seed


def _is_single_line(prompt_format: str) -> bool:
    return prompt_format != "chat"


def _quieten() -> None:
    """Keep other libraries' chatter off the screen; nothing that tells of a fault is among it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns whenever a process forks
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # nothing phones home
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # a bar for each load
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # batches are lists of ids: workers would only cost
        ".*Checkpoint directory .* exists and is not empty.*",  # so it is after every resume
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*Total length of `list` across ranks is zero.*",  # no held-out pairs, which is allowed
        ".*LeafSpec.*",  # a deprecation inside lightning 2.6 with torch 2.13
        # the newer name is not in every transformers that is admitted
        ".*`(is_gradient_checkpointing|gradient_checkpointing_enable)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
    # an advertisement
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage()
    )


def main(args: ArgsType = None) -> None:
    """Run the command line. Errors that a user can mend end it without a traceback, unless ISARA_PL_DEBUG is set.

    Args:
        args: Arguments in place of those of the process, as strings or as a dict.
    """
    _quieten()
    keep_freed_memory()
    end_together(getattr(rank_zero_only, "rank", 0))
    arguments = sys.argv[1:] if args is None else args
    in_main_thread = threading.current_thread() is threading.main_thread()  # no other may set handlers
    ours = in_main_thread and signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, None)
    terminated: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate) if ours else None
    try:
        if isinstance(arguments, list) and arguments[:1] == ["compare"]:
            compare.main(arguments[1:])
            return
        IsaraCLI(
            IsaraModule,
            IsaraDataModule,
            args=args,
            seed_everything_default=0,
            auto_configure_optimizers=False,  # the module has its own
            save_config_callback=RunConfig,
            trainer_defaults={
                "devices": 1,
                "use_distributed_sampler": False,  # IsaraDataModule splits its batches itself
                "reload_dataloaders_every_n_epochs": 1,
                "num_sanity_val_steps": 0,  # the pretrained model is measured in full
                "enable_model_summary": False,
                "log_every_n_steps": 1,
                "callbacks": [GracefulStop(), OuterEpochTable(), AdapterExport(), PredictionWriter()],
            },
            parser_kwargs={
                "prog": "isara-pl",
                "exit_on_error": False,
                "allow_abbrev": False,  # a typo must not pass for another option
                "description": "Align a causal LM to a domain from fewer than 100 examples (ISARA, arXiv 2401.06785). "
                "`isara-pl compare RUN RUN ...` compares what runs measured; see `isara-pl compare --help`.",
                # the full usage has a hundred lines, which would bury the message of every error
                **{
                    name: {
                        "usage": f"isara-pl {name} --config FILE [--OPTION VALUE ...]",
                        "exit_on_error": False,  # it would print what it found as it is
                    }
                    for name in IsaraCLI.subcommands()
                },
            },
        )
    except ArgumentError as error:
        print(f"error: {printable(str(error))}\ntip: `isara-pl fit --help` shows every option", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + (terminated[0] if terminated else signal.SIGINT))
    except SystemExit as error:
        if terminated and error.code == 128 + signal.SIGINT:
            sys.exit(128 + terminated[0])
        raise
    except Exception as error:
        fault = _users_fault(error)
        if fault is None or os.environ.get(DEBUG):
            raise
        print(f"error: {printable(fault)}", file=sys.stderr)
        sys.exit(1)
    finally:
        os.environ.pop(STARTER, None)
        if ours:
            signal.signal(signal.SIGTERM, before)


def _users_fault(error: BaseException | None) -> str | None:
    """Say what the user can mend behind an error; jsonargparse wraps what a callback raises."""
    while error is not None:
        if isinstance(error, InputError | MisconfigurationException | OSError):
            return str(error)
        if isinstance(error, Exception) and is_out_of_memory(error):
            return f"{OUT_OF_MEMORY} ({first_line(error)})"
        error = error.__cause__
    return None
