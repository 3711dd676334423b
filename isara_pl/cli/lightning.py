"""Lightning's subcommands: one LightningCLI, and what surrounds a run."""

import json
import os
import signal
import sys
import zipfile
from argparse import HelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only

from isara_pl.callbacks import (
    AdapterExport,
    AlphaStopping,
    DiversityMonitor,
    GracefulStop,
    HeldOutAnswers,
    Ledger,
    OuterEpochBar,
    OuterEpochSummary,
    OuterEpochTable,
    PredictionWriter,
    ReportWriter,
    RunCheckpoint,
    SampleLogger,
    StageProgress,
    prediction_writer,
)
from isara_pl.callbacks.evaluation import Evaluation
from isara_pl.callbacks.stage_progress import can_draw
from isara_pl.cli.errors import PlainErrors, names_of, refuse_linked, subparsers, users_fault
from isara_pl.cli.first_look import remember, remembered
from isara_pl.cli.help import ordered, texts
from isara_pl.cli.options import all_absolute, all_expanded, file_with, in_full, link, refuse_null
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.growth.pool import is_grown
from isara_pl.models.loading import quieten
from isara_pl.models.precision import fast_precision
from isara_pl.module import IsaraModule
from isara_pl.report.terminal import ending
from isara_pl.results.metrics import read_rows
from isara_pl.results.run import CONFIG
from isara_pl.run.checkpoints import WholeCheckpointIO
from isara_pl.run.files import expanded, write_whole
from isara_pl.run.folder import CHECKPOINTS, LAST_CHECKPOINT, make_run_folder, run_folder, safe_on_disk
from isara_pl.run.heartbeat import STARTER, end_together
from isara_pl.run.memory import keep_freed_memory
from isara_pl.run.notices import print_as_sentences
from isara_pl.run.trainer import callbacks_of
from isara_pl.training.loaders import HeldOutEvaluation

# callbacks of every run that have options of their own, and where those stand
WITH_OPTIONS: dict[type[Callback], str] = {
    AlphaStopping: "alpha_stopping",
    Ledger: "ledger",
    SampleLogger: "sample_logger",
    HeldOutAnswers: "held_out_answers",
    ReportWriter: "report",
}


class RunConfig(SaveConfigCallback):
    """Writes the configuration of `fit` to `config.yaml` in the run folder, with absolute paths."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file, before anything else of the run is written."""
        if stage == "fit" and trainer.is_global_zero:
            config = self.parser.dump(all_absolute(self.config), skip_unset=False)
            write_whole(Path(trainer.default_root_dir) / CONFIG, config)


class IsaraParser(PlainErrors, LightningArgumentParser):
    """Lightning's parser, with errors in plain words and help in an order for people."""

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **others: Any) -> Any:  # type: ignore[override]
        """Parse, with options whose short form is written out."""
        return super().parse_args(in_full(sys.argv[1:] if args is None else args), *more, **others)

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """Give the help, Lightning's options last; Python 3.15 hands a formatter over."""
        self._action_groups = ordered(self._action_groups)
        return super().format_help() if formatter is None else super().format_help(formatter)


class IsaraCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` with IsaraModule and IsaraDataModule."""

    def __init__(
        self,
        module: type[IsaraModule],
        data: type[IsaraDataModule],
        args: list[str] | dict[str, Any] | None,
        **options: Any,
    ) -> None:
        words = sys.argv[1:] if args is None else args
        self._named = {name for name in self.subcommands() if name in words} or {*self.subcommands()}
        super().__init__(module, data, args=args, **options)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed, with a help text of our own."""
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=self.seed_everything_default,
            help="The one seed that everything random follows from.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what belongs to a run, and link what must agree."""
        parser.add_argument(
            "--run_dir",
            type=str,
            default="runs/isara",
            help="Folder of everything that the run leaves behind, its loggers' files included.",
        )
        for kind, name in WITH_OPTIONS.items():
            parser.add_lightning_class_args(kind, name)
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
        link(parser)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Add its options, which takes a while, where it is named; let `validate` show our table alone."""
        if subcommand not in self._named:
            return self.init_parser(**kwargs)
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "validate":
            parser.set_defaults({"verbose": False})
        return parser

    def parse_arguments(
        self, parser: LightningArgumentParser, args: list[str] | dict[str, Any] | Namespace | None
    ) -> None:
        """Parse, and refuse what would be overwritten."""
        for name in self._named:
            if remembered(f"options-{name}") is None:
                remember(f"options-{name}", json.dumps(names_of(subparsers(parser)[name])))
        super().parse_arguments(parser, args)
        words = sys.argv[1:] if args is None else args
        if isinstance(words, list):
            refuse_linked(parser, words)
            self._go_where_the_run_is(parser, words)
        self.config = all_expanded(self.config)

    def _go_where_the_run_is(self, parser: LightningArgumentParser, words: list[str]) -> None:
        """Take the folder of a run's config.yaml for its run folder: a run may be moved or copied after its fit."""
        config, file = self.config[self.config.subcommand], file_with("run_dir", words)
        anew = self.config.subcommand == "fit" and config.ckpt_path is None  # which the file only gives options to
        if file is None or anew or file.name != CONFIG or not _holds_run(file.parent):
            return
        if file.parent.resolve() != Path(expanded(config.run_dir)).resolve():
            rank_zero_info(f"run_dir: {file.parent}, where the run of this {CONFIG} is now, not {config.run_dir}")
            self.config = parser.parse_args([*words, f"--run_dir={file.parent}"])

    def _parse_ckpt_path(self) -> None:
        """Take no options from a checkpoint: none are kept there, config.yaml holds them."""

    def before_instantiate_classes(self) -> None:
        """Refuse null where it has no meaning, and choose a precision, if none was given, by asking the machine."""
        config = self.config[self.config.subcommand]
        for kind, name in ((IsaraModule, "model"), (IsaraDataModule, "data"), *WITH_OPTIONS.items()):
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
        loggers = config["logger"] if isinstance(config["logger"], list) else [config["logger"]]
        if any(isinstance(logger, WandbLogger) for logger in loggers):
            for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # else copies of sample tables lie in the user's home
                os.environ.setdefault(name, str(Path(config["default_root_dir"]) / "wandb"))
        writers = [GracefulStop(), StageProgress(), OuterEpochTable(), OuterEpochSummary(), AdapterExport()]
        given = config["callbacks"] or []
        if config["enable_progress_bar"] is None and not any(isinstance(one, ProgressBar) for one in given):
            if can_draw():
                callbacks = [*callbacks, OuterEpochBar()]
            else:
                config["enable_progress_bar"] = False  # StageProgress logs lines
        # the report shows what all others have written
        ordered = sorted([*callbacks, *writers, PredictionWriter()], key=lambda one: isinstance(one, ReportWriter))
        return super()._instantiate_trainer(config, ordered)

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
        stops = [callback.signal for callback in callbacks_of(self.trainer) if isinstance(callback, GracefulStop)]
        return 128 + (next(filter(None, stops), None) or signal.SIGINT)

    def _check_checkpoint(self, subcommand: str) -> None:
        config = self.config[subcommand]
        if subcommand == "predict" and config.ckpt_path is None and _last_checkpoint(config.run_dir).exists():
            config.ckpt_path = self.config_init[subcommand].ckpt_path = "last"  # a run answers with what it trained
        if config.ckpt_path is None:
            return
        path = _last_checkpoint(config.run_dir) if config.ckpt_path == "last" else Path(config.ckpt_path)
        if config.ckpt_path == "last" and subcommand == "fit" and not path.exists():
            # killed before its first checkpoint: the pool on disk is all there is to continue from
            self.config_init[subcommand].ckpt_path = None  # Lightning would warn of that
            return
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
        run_dir = Path(config.run_dir)
        # Lightning goes on from the checkpoint of a requeued job by itself
        requeued = SLURMEnvironment.detect() and any(run_dir.glob("hpc_ckpt_*.ckpt"))
        resuming = requeued or config.ckpt_path is not None
        if _holds_run(run_dir) and not resuming and run_folder(self.trainer) is not None:
            raise InputError(
                f"{run_dir} holds a run already. Add --ckpt_path last to continue it, "
                "or choose another folder with --run_dir"
            )
        if self._measures() and 0 not in read_rows(run_dir / "metrics.csv"):
            self.datamodule.fit_follows = True
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)

    def _make_run_folder(self) -> None:
        run_dir = run_folder(self.trainer)
        if run_dir is not None:
            make_run_folder(run_dir)

    def before_validate(self) -> None:
        """Refuse to measure on nothing."""
        self._make_run_folder()
        if not self._measures(besides=DiversityMonitor):  # which looks at samples, not at a model
            raise InputError(
                "data.held_out: there is nothing to measure on; give a file of held-out pairs, a "
                "data.validation_share of the seeds, or a callback that has items of its own, such as "
                "HarmPreferenceEvaluation"
            )

    before_test = before_validate

    def _measures(self, besides: type[Callback] | tuple[()] = ()) -> bool:
        """Whether there is anything to measure on, besides what callbacks of a type do."""
        return bool(self.datamodule.held_out or self.datamodule.validation) or any(
            bool(callback.own_items) if isinstance(callback, Evaluation) else isinstance(callback, HeldOutEvaluation)
            for callback in callbacks_of(self.trainer)
            if not isinstance(callback, besides)
        )

    def after_fit(self) -> None:
        """Show the figures and where everything lies."""
        run_dir = run_folder(self.trainer)
        reports = [callback for callback in callbacks_of(self.trainer) if isinstance(callback, ReportWriter)]
        baselines = [named for report in reports for named in report.baselines]
        if run_dir is not None:
            print(ending(run_dir, baselines))

    after_validate = after_fit

    def after_predict(self) -> None:
        """Show where the answers lie."""
        run_dir = run_folder(self.trainer)
        weights = f"adapter of {self.trainer.ckpt_path}" if self.trainer.ckpt_path else "pretrained model"
        if run_dir is not None:
            print(f"answers of the {weights}: {run_dir / prediction_writer.FILE}")


def _holds_run(run_dir: Path) -> bool:
    return is_grown(run_dir) or _last_checkpoint(run_dir).exists()


def _last_checkpoint(run_dir: str | Path) -> Path:
    return Path(run_dir) / CHECKPOINTS / LAST_CHECKPOINT


def run(args: list[str] | dict[str, Any] | None = None) -> None:
    """Run a subcommand of Lightning; what its user can mend, whichever library found it, is an InputError."""
    quieten()
    print_as_sentences()
    keep_freed_memory()
    torch.backends.cuda.enable_cudnn_sdp(False)  # it would plan for the length of every training batch
    end_together(getattr(rank_zero_only, "rank", 0))
    try:
        cli = IsaraCLI(
            IsaraModule,
            IsaraDataModule,
            args=args,
            parser_class=IsaraParser,
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
            },
            parser_kwargs={
                "prog": "isara-pl",
                "allow_abbrev": False,  # a typo must not pass for another option
                **{name: texts(name) for name in IsaraCLI.subcommands()},
            },
        )
        vars(cli).clear()  # jsonargparse's contexts keep it, and with it the model, beside that of a next run
    except Exception as error:
        fault = users_fault(error)
        if fault is None or isinstance(error, InputError):
            raise
        raise InputError(fault) from error
    finally:
        os.environ.pop(STARTER, None)
