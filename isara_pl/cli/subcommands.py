"""The subcommands, and what the command line shows to someone who has not named one."""

from importlib.metadata import version

LINES = {
    "fit": "Grow the pool and fine-tune on it, outer epoch by outer epoch",
    "validate": "Measure the pretrained model, or a checkpoint, on held-out pairs",
    "predict": "Answer a file of questions",
    "test": "The same as validate, under Lightning's name for a last measurement",
    "compare": "Say what the differences between runs are worth",
    "report": "Write the report of a run, one file for a browser",
    "export": "Write adapter, merged model and data set as other tools load them",
    "completion": "Print what lets a shell complete names and options",
}
# the module whose main runs it; the rest are Lightning's
OTHERS = {
    "compare": "isara_pl.cli.compare",
    "report": "isara_pl.cli.report",
    "export": "isara_pl.cli.export",
    "completion": "isara_pl.cli.completion",
}
ABOUT = "align a causal language model to a domain from fewer than 100 question-answer pairs"


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
