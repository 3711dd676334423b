"""What the command line shows: the subcommands, how to begin, and the help of those of Lightning."""

from argparse import _ArgumentGroup
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

# subcommands of Lightning, and those that are functions
LIGHTNINGS = {
    "fit": "Grow the pool and fine-tune on it, outer epoch by outer epoch",
    "validate": "Measure the pretrained model, or a checkpoint, on held-out pairs",
    "predict": "Answer a file of questions",
    "test": "The same as validate, under Lightning's name for a last measurement",
}
COMMANDS = {
    "quickstart": "See a whole run on the embedded models and pairs: no GPU, no network, no files of yours",
    "align": "Find out which method your pairs justify, and make what to use of them",
    "compare": "Say what the differences between runs are worth",
    "report": "Write the report of a run, one file for a browser",
    "export": "Write adapter, merged model and data set as other tools load them",
    "evaluate": "Measure a run's model with lm-evaluation-harness or inspect_ai",
    "serve": "Print or start a vLLM server that writes the candidates of a run",
    "completion": "Print what lets a shell complete names and options",
}
HELP = ("-h", "--help")
TOLD = {
    "version": "Show the version",
    "help": "Show this help message; with the name of a subcommand, that of the subcommand",
}
LINES = LIGHTNINGS | COMMANDS | TOLD
ABOUT = "align a causal language model to a domain from fewer than 100 question-answer pairs"
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


def start() -> str:
    """Give what is shown where nothing was asked for: the three commands to begin with."""
    return f"""\
{version_line()}: {ABOUT}.

Fine-tune on your pairs and on those that the model writes from them, and measure the model on others:
    isara-pl fit --model.name MODEL --data.seeds PAIRS.jsonl --data.held_out OTHERS.jsonl --run_dir runs/mine
See in a browser whether that helped, why it ended, and every sample:
    isara-pl report runs/mine
Know what the difference between runs is worth:
    isara-pl compare runs/mine runs/other

All subcommands: isara-pl --help. All options of one: isara-pl fit --help. `python -m isara_pl` is the same command."""


def overview() -> str:
    """Give the help of the command line as a whole."""
    return "\n".join([
        "usage: isara-pl SUBCOMMAND [OPTIONS]",
        "",
        f"ISARA (arXiv 2401.06785): {ABOUT}.",
        "",
        "subcommands:",
        *(f"  {name:<11} {line}" for name, line in LINES.items()),
        "",
        "options:",
        "  -h, --help  Show this help message and exit; after a subcommand, that of the subcommand",
        "  --version   Show the version and exit",
        "",
        "Set ISARA_PL_DEBUG=1 to see the traceback behind an error message.",
    ])  # fmt: skip


def version_line() -> str:
    """Give name and version."""
    return f"isara_pl {version('isara_pl')}"


def texts(subcommand: str) -> dict[str, str]:
    """Give the parts of a subcommand's help, as arguments of its parser."""
    start = f"isara-pl {subcommand} "
    examples = ("--config FILE [--OPTION VALUE ...]", *EXAMPLES.get(subcommand, ()))
    # the full usage has a hundred lines
    usage = "\n       ".join(start + example for example in examples)
    return {"usage": usage, "description": f"{LINES[subcommand]}.", "epilog": EPILOG}


def ordered(groups: Iterable[Any]) -> list[Any]:
    """Put Lightning's options behind this project's, which keep their order; without those that cannot be given."""
    shown = sorted((group for group in groups if group.title != "Linked arguments"), key=_place)
    for group in shown:
        group.title = TITLES[_place(group)] or group.title
    return shown


def _place(group: _ArgumentGroup) -> int:
    names = {action.dest for action in group._group_actions}
    return max((place for place, name in enumerate(MEMBERS) if name in names), default=0)
