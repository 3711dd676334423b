"""The help of Lightning's subcommands: what each is for, and this project's options before Lightning's hundreds."""

from argparse import HelpFormatter, _ArgumentGroup

from lightning.pytorch.cli import LightningArgumentParser

from isara_pl.cli.subcommands import LINES
from isara_pl.cli.usage import PlainErrors

# the groups of Lightning's options in their order behind this project's: an option that each holds, and its title
MEMBERS = (None, "ckpt_path", "checkpoint.monitor", "trainer.devices")
TITLES = (None, "Lightning's options of this subcommand", None, "Lightning's Trainer")
EXAMPLES = {
    "fit": (
        "--model.name MODEL --data.seeds PAIRS.jsonl --data.held_out OTHERS.jsonl --run_dir runs/mine",
        "--config runs/mine/config.yaml --ckpt_path last    # go on with a run",
    ),
    "validate": (
        "--model.name MODEL --data.seeds PAIRS.jsonl --data.held_out OTHERS.jsonl --run_dir runs/pretrained",
        "--config runs/mine/config.yaml --ckpt_path last    # measure a run's adapter again",
    ),
    "predict": ("--config runs/mine/config.yaml --ckpt_path last --data.questions QUESTIONS.jsonl",),
}
EPILOG = (
    "This project's options come first, Lightning's behind them: of the subcommand, `checkpoint` and `trainer`. "
    "A --config file holds them as YAML, each dot a level: `data: {seeds: PAIRS.jsonl}`. Options on the command line "
    "override it."
)


class IsaraParser(PlainErrors, LightningArgumentParser):
    """Lightning's parser, with errors in plain words and help in an order for people."""

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """Give the help, Lightning's options last; without those that follow from others and cannot be given.

        Args:
            formatter: What Python 3.15 hands over.
        """
        groups = [group for group in self._action_groups if group.title != "Linked arguments"]
        self._action_groups = sorted(groups, key=_place)
        for group in groups:
            group.title = TITLES[_place(group)] or group.title
        return super().format_help() if formatter is None else super().format_help(formatter)


def texts(subcommand: str) -> dict[str, str]:
    """Give the parts of a subcommand's help, as arguments of its parser.

    Args:
        subcommand: One of Lightning's.
    """
    start = f"isara-pl {subcommand} "
    examples = ("--config FILE [--OPTION VALUE ...]", *EXAMPLES.get(subcommand, ()))
    # the full usage has a hundred lines
    usage = "\n       ".join(start + example for example in examples)
    return {"usage": usage, "description": f"{LINES[subcommand]}.", "epilog": EPILOG}


def _place(group: _ArgumentGroup) -> int:
    """Give a group's place in the help; this project's groups have the first one, in their own order."""
    names = {action.dest for action in group._group_actions}
    return max((place for place, name in enumerate(MEMBERS) if name in names), default=0)
