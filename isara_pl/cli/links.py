"""Options that follow from others, so that what must agree is given once."""

from pathlib import Path

from lightning.pytorch.cli import LightningArgumentParser

from isara_pl.run.folder import CHECKPOINTS


def link(parser: LightningArgumentParser) -> None:
    """Let options of a run follow from others.

    Args:
        parser: The parser of a subcommand of Lightning, with all its options.
    """
    parser.link_arguments("run_dir", "trainer.default_root_dir")
    parser.link_arguments("run_dir", "trainer.logger.init_args.save_dir")  # what a logger writes is part of the run
    parser.link_arguments("run_dir", "checkpoint.dirpath", compute_fn=_checkpoint_folder)
    parser.link_arguments(
        ("data.outer_epochs", "data.epochs_per_outer_epoch"), "trainer.max_epochs", compute_fn=_product
    )
    parser.link_arguments("data.epochs_per_outer_epoch", "trainer.check_val_every_n_epoch")
    parser.link_arguments("data.epochs_per_outer_epoch", "model.epochs_per_outer_epoch")
    parser.link_arguments("model.objective", "data.objective")
    parser.link_arguments("model.name", "data.tokenizer")
    parser.link_arguments("model.trust_remote_code", "data.trust_remote_code")
    for target in ("model.seed", "data.seed"):
        parser.link_arguments("seed_everything", target, compute_fn=_number)
    for target in ("data.question_sampling", "data.answer_sampling", "model.prediction_sampling"):
        parser.link_arguments("data.prompt_format", f"{target}.stop_at_newline", compute_fn=_is_single_line)


def _checkpoint_folder(run_dir: str) -> str:
    return str(Path(run_dir) / CHECKPOINTS)


def _product(outer_epochs: int, epochs: int) -> int:
    return outer_epochs * epochs


def _number(seed: bool | int) -> int:
    return 0 if isinstance(seed, bool) else seed


def _is_single_line(prompt_format: str) -> bool:
    return prompt_format != "chat"
