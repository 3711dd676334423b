"""The subcommands that are functions: their signatures make their command lines, and their docstrings the help."""

import os
import re
import shlex
from argparse import SUPPRESS, Action
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from jsonargparse import ArgumentParser, capture_parser
from jsonargparse.typing import NonNegativeInt, PositiveInt

from isara_pl.cli.errors import PlainErrors, subparsers
from isara_pl.cli.help import LIGHTNINGS, LINES, TOLD
from isara_pl.cli.options import admits_text, all_expanded, choices, class_names
from isara_pl.cli.quickstart import quickstart
from isara_pl.cli.signatures import parameter_of, parser_for
from isara_pl.errors import InputError, did_you_mean_path, printable
from isara_pl.growth.hub_data import source_of
from isara_pl.models.sources import resolve_path
from isara_pl.results import alpha as alpha_ranges
from isara_pl.results.compare import as_markdown, as_text, named_run, run_folder_at
from isara_pl.results.compare import compare as compared
from isara_pl.results.run import Run as RunFolder
from isara_pl.results.run import read_config
from isara_pl.run.files import write_whole
from isara_pl.run.notices import print_as_sentences

Run = Annotated[str, "RUN"]  # the second is what stands for the value in the help
Runs = Annotated[list[str], "[NAME=]RUN"]
File = Annotated[str | None, "FILE"]


def compare(
    runs: Runs,
    reference: Annotated[str | None, "NAME"] = None,
    outer_epochs: Literal["last", "all"] = "last",
    clean: bool = False,
    alpha: bool = False,
    resamples: Annotated[int, "N"] = 10_000,
    seed: Annotated[NonNegativeInt, "N"] = 0,
    json: File = None,
    csv: File = None,
    markdown: File = None,
) -> None:
    """Compare methods on the same items, from the evaluation/ of their run folders.

    Fitted runs are taken to start from one pretrained model.

    Args:
        runs: Run folders. Without NAME the method is called like the folder, without a seed at the end (-seed3).
            Runs of one name are pooled.
        reference: The method that the others are compared to. Without it: SFT on the seeds, else the pretrained model.
        outer_epochs: Of a fitted run, the last outer epoch measured, or every one as a row.
        clean: Leave out the items that some run was trained on.
        alpha: From one run with alpha_stopping.alpha 0: where every α would have stopped it, and the figures there.
        resamples: Resamples of the bootstrap.
        seed: Seed of the resamples.
        json: Write json here too.
        csv: Write csv here too.
        markdown: Write markdown here too.
    """
    command = {"name": "compare", **locals()}
    named = [named_run(text, "compare") for text in runs]
    if alpha:
        if len(named) != 1 or reference or clean or outer_epochs != "last":
            raise InputError("--alpha takes one run, and beside it --json, --csv and --markdown only")
        sections, found, table = alpha_ranges.report(RunFolder(named[0][1]))
    else:
        sections, found, table = compared(named, reference, outer_epochs == "all", clean, resamples, seed)
    print(as_text(sections))
    for path, text in (
        (json, dumps({"command": command, **found}, allow_nan=False, indent=2) + "\n"),
        (csv, table),
        (markdown, as_markdown(sections)),
    ):
        if path is not None:
            write_whole(Path(path), text)
            print(f"written: {path}")


def report(run: Run, *, baselines: Runs = [], to: File = None) -> None:  # noqa: B006  # only read
    """Write report.html: whether a run helped, why it stopped, what it cost, and every sample with its lineage.

    It only reads the run, also while that is going on, and needs no network.

    Args:
        run: The run folder (--run_dir of its fit).
        baselines: Run folders to compare with, such as SFT on the seeds. Runs of one name are pooled.
        to: Where to write it. Without it: RUN/report.html.
    """
    run_dir = run_folder_at(run, "report")
    read = RunFolder(run_dir)
    others = [named_run(text, "--baselines") for text in baselines]

    # only here: torch takes seconds to import
    from isara_pl.models.loading import quieten
    from isara_pl.report import findings
    from isara_pl.report.curves import encoder_of
    from isara_pl.report.page import FILE, write_report

    quieten()
    try:
        encoder = encoder_of(read)
    except InputError as error:
        print(printable(f"no map: {error}"))
        encoder = None
    target = Path(to) if to else run_dir / FILE
    print(printable(findings.as_text(write_report(read, others, encoder, target).findings)))
    print(printable(f"\n{target}: the whole report, for a browser"))


def export(
    run: Run,
    *,
    to: Annotated[str, "DIR"],
    license: Annotated[str | None, "ID"] = None,
    push: Annotated[str | None, "OWNER/NAME"] = None,
    preferences: bool = False,
    gguf: Literal["auto", "f32", "f16", "bf16", "q8_0"] | None = None,
    converter: Annotated[str | None, "PROGRAM"] = None,
) -> None:
    """Write what others can use of a run: adapter/, model/ and dataset/, each with a card.

    The adapter is of LoRA, the model is base and adapter merged, with the tokenizer, and the data set holds all pairs,
    as JSONL and Parquet. The base model must be on this machine; without --push no network is used.

    Args:
        run: Folder of a run of `fit` that left an adapter.
        to: Folder to write into: a new one, or an empty one.
        license: Licence of model and data as the hub names it, such as apache-2.0 or cc-by-4.0; without it the cards
            name none. What the licences of the base model and of the seeds allow is for you to know.
        push: Upload to the Hugging Face hub as well: the model to OWNER/NAME, the rest to OWNER/NAME-adapter and
            OWNER/NAME-data, your seeds included. Repositories that this makes are private; one that is there already
            stays as visible as it is. Needs a token (`hf auth login`).
        preferences: Write pairs of answers to prefer one of into the data set as well, in TRL's format: the pool's, and
            what the model answers without demonstrations. It has to answer every question of the pool for that.
        gguf: Write gguf/ as well: model.gguf for llama.cpp, with weights of this type (auto: 16 bits), and a Modelfile
            with which Ollama writes the run's prompts. Needs llama.cpp's converter.
        converter: That converter, convert_hf_to_gguf.py of llama.cpp; without it, one on PATH.
    """
    folder, target = run_folder_at(run, "export"), Path(to)
    _refuse(target, license, push)
    if converter is not None and gguf is None:
        raise InputError("--converter converts for --gguf; give that as well, as in --gguf auto")

    # only here: torch takes seconds to import
    from isara_pl.export.exporting import export as write
    from isara_pl.export.gguf_file import converter_of

    by = None if gguf is None else converter_of(gguf, converter)
    write(folder, target, license, push, preferences, by)


def evaluate(
    run: Run,
    *,
    with_: Literal["lm-eval", "inspect"],
    tasks: Annotated[list[str], "TASK"],
    task_folder: Annotated[str | None, "DIR"] = None,
    num_fewshot: Annotated[NonNegativeInt | None, "N"] = None,
    chat_template: bool = False,
    limit: Annotated[PositiveInt | None, "N"] = None,
    batch_size: Annotated[PositiveInt, "N"] = 8,
    trained_only: bool = False,
) -> None:
    """Measure a run's model with one of the field's harnesses, in this process, before training and after.

    The figures of every item stand beside the run's own, in evaluation/, where `compare` finds them. The base model
    must be on this machine; a network is used only where a task takes its data from there.

    Args:
        run: Folder of a run of `fit` that left an adapter.
        with_: lm-evaluation-harness (pip install 'isara_pl[lm-eval]') or inspect_ai (pip install inspect-ai).
        tasks: What to measure: tasks, groups or tags of lm-eval; of inspect FILE.py, FILE.py@TASK or PACKAGE/TASK.
        task_folder: Folder of tasks of your own for lm-eval, YAML files as it reads them.
        num_fewshot: Examples in the prompt, for lm-eval; without it, as many as the task says.
        chat_template: Put the prompts of lm-eval into the tokenizer's chat template; inspect does so anyway.
        limit: Items of each task; without it, all.
        batch_size: Prompts at once.
        trained_only: Leave out the pretrained model, which takes as long again.
    """
    folder = run_folder_at(run, "evaluate")
    if with_ == "inspect" and (task_folder is not None or num_fewshot is not None or chat_template):
        raise InputError("--task_folder, --num_fewshot and --chat_template are of lm-eval; inspect's tasks hold theirs")
    if task_folder is not None and not Path(task_folder).is_dir():
        raise InputError(f"--task_folder: no such folder: {task_folder}.{did_you_mean_path(task_folder, Path.is_dir)}")

    # only here: torch takes seconds to import
    from isara_pl.export.finished_run import refuse_unfinished
    from isara_pl.harnesses.measuring import measure_run

    refuse_unfinished(folder)  # before thousands of tasks are looked through
    if with_ == "inspect":
        from isara_pl.harnesses.inspect_harness import Inspect

        measure_run(folder, Inspect(tasks, limit, batch_size, folder / "evaluation/inspect"), trained_only)
    else:
        from isara_pl.harnesses.lm_harness import LmEval

        own = None if task_folder is None else Path(task_folder)
        measure_run(folder, LmEval(tasks, own, num_fewshot, limit, batch_size, chat_template), trained_only)


def align(
    seeds: Annotated[str, "SEEDS"],
    *,
    model__name: Annotated[str, "MODEL"],
    held_out: File = None,
    to: Annotated[str, "DIR"] = "runs/align",
    budget: Annotated[str | None, "TIME"] = None,
    decide_by: Annotated[str, "MEASURE"] = "answer_nll",
    folds: Annotated[PositiveInt, "N"] = 4,
    config: Annotated[str | None, "CONFIG"] = None,
    also: Annotated[list[str], "[NAME=]CONFIG"] = [],  # noqa: B006  # only read
    seed: Annotated[NonNegativeInt, "N"] = 0,
) -> None:
    """Find out which method your pairs justify, and make what to use of them: an adapter, or the pairs in the prompt.

    In the prompt (icl_knn), fine-tuning (sft), distillation of the pairs (distill_seeds), the loop as in the paper
    (isara) and the loop with distillation (distill) compete with the pretrained model. Each is measured on parts of the
    pairs that it was not trained on. The simplest one that is not shown to be worse than the best wins, and is trained
    on all pairs; where answers do not follow from their questions, the pretrained model is kept. The same command goes
    on where it was cut off.

    Args:
        seeds: File of your question-answer pairs, at least 8.
        model__name: The model, as for `fit`: a hub id, a folder, a .gguf file or package://module/path.
        held_out: File of further pairs, which decide nothing: what won is measured on them once more.
        to: Folder of all that is written.
        budget: Most time that it may take, such as 30m or 2h: parts are left out first, then the dearest methods.
        decide_by: What decides: answer_nll, scaled_nll, mc2 (pairs with incorrect_answers), harm_preference (a file of
            chosen and rejected answers), or a measure of an evaluation in --config.
        folds: How many parts the pairs are split into; fewer where a part would have fewer than 4.
        config: Options of all runs, as of `fit`, such as data.prompt_format or trainer.callbacks.
        also: Configuration files of `fit` for further methods.
        seed: Seed of the parts and of all runs.
    """
    from isara_pl.align.aligning import align as find_best  # only here: torch takes seconds to import
    from isara_pl.align.contestants import Contestant
    from isara_pl.align.request import Request
    from isara_pl.cli.lightning import run
    from isara_pl.models.loading import quieten

    quieten()
    others = [(name, path) for name, path in map(_named_config, also)]
    find_best(
        Request(
            source_of(seeds, "SEEDS"),
            model__name,
            None if held_out is None else source_of(held_out, "--held_out"),
            Path(to),
            {} if config is None else read_config(resolve_path(config, "--config")),
            [Contestant(name, name, options=read_config(path)) for name, path in others],
            decide_by,
            folds,
            None if budget is None else _seconds(budget),
            seed,
        ),
        run,
        lambda line: print(printable(line), flush=True),
    )


def serve(
    run: Run,
    *,
    port: Annotated[NonNegativeInt, "N"] = 8000,
    python: Annotated[str, "PYTHON"] = "python",
    start: bool = False,
) -> None:
    """Print the command that starts a vLLM server for a run: its model, and what its adapter and objective need.

    The server listens on this machine alone.

    Args:
        run: The run folder; of a run that has not begun, its configuration file.
        port: Where the server listens.
        python: Interpreter of the environment that holds vLLM.
        start: Start the server as well, in place of this command.
    """
    is_config, or_else = Path(run).is_file(), ", or its configuration file where it has not begun"
    config = read_config(Path(run)) if is_config else RunFolder(run_folder_at(run, "serve", or_else)).config

    # only here: torch takes seconds to import
    from isara_pl.generation.serving import server_command, wanted_by
    from isara_pl.models.precision import fast_precision

    precision, _ = fast_precision(str((config.get("trainer") or {}).get("accelerator", "auto")))
    variables, words = server_command(wanted_by(config, run, precision), python, port)
    print(" ".join([*(f"{name}={value}" for name, value in variables.items()), shlex.join(words)]), flush=True)
    if start:
        try:
            os.execvpe(words[0], words, {**os.environ, **variables})
        except OSError as error:
            raise InputError(
                f"--python: {python} cannot be started ({error.strerror}). Allowed: an interpreter with vLLM"
            ) from None


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script with which a shell completes subcommands, options, values where there are few, and files.

    For bash: isara-pl completion bash > ~/.local/share/bash-completion/completions/isara-pl. Print it again after an
    update.

    Args:
        shell: For which shell.
    """
    if find_spec("shtab") is None:
        raise InputError("completion: the package shtab is missing; pip install 'isara_pl[completion]'")
    import shtab  # an extra

    from isara_pl.cli.lightning import run  # with torch and Lightning

    whole = ArgumentParser(prog="isara-pl")
    whole.add_argument("--version", action="store_true", help="Show the version and exit.")
    subcommands = whole.add_subcommands()
    parsers = subparsers(capture_parser(run, [*LIGHTNINGS])) | {name: parser_of(name) for name in COMMANDS}
    parsers |= {name: PlainErrors(prog=f"isara-pl {name}", add_help=False) for name in TOLD}
    for name, line in LINES.items():
        parsers[name].description = line
        subcommands.add_subcommand(name, parsers[name], help=line)
        for action in parsers[name]._actions:
            _complete(action, shtab.FILE)
    print(shtab.complete(whole, shell))


COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command for command in (quickstart, align, compare, report, export, evaluate, serve, completion)
}


def run_command(name: str, args: Sequence[str]) -> None:
    """Run a command with the arguments behind its name; an InputError or ArgumentError says what is wrong."""
    print_as_sentences()
    options = all_expanded(parser_of(name).parse_args(list(args)))
    COMMANDS[name](**{parameter_of(option): value for option, value in vars(options.as_flat()).items()})


def parser_of(name: str) -> PlainErrors:
    """Give a command's parser."""
    return parser_for(COMMANDS[name], f"isara-pl {name}")


def _complete(action: Action, files: object) -> None:
    """Tell shtab what completes an option's value: the few that there are, or else files, if it takes text."""
    hint = getattr(action, "_typehint", None)
    known = class_names(hint) or ([] if admits_text(hint) else choices(hint))
    if action.option_strings and not action.option_strings[0].startswith("-"):  # how jsonargparse notes a link
        action.help = SUPPRESS
    elif known:
        action.choices = known
    elif admits_text(hint) or action.metavar == "CONFIG" or action.dest == "config":
        action.complete = files  # type: ignore[attr-defined]  # shtab's way


def _named_config(text: str) -> tuple[str, Path]:
    """Give the name of a method and its configuration, from `CONFIG` or `NAME=CONFIG`; the name is else the file's."""
    name, equals, rest = text.partition("=")
    path = resolve_path(rest if equals else text, "--also")
    return (name if equals else path.stem), path


def _seconds(text: str) -> float:
    """Give a time such as 90s, 30m or 2h in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found:
        raise InputError(f"--budget: {text!r} is no time. Allowed: a number with s, m or h behind it, such as 30m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _refuse(target: Path, license: str | None, repository: str | None) -> None:
    """Refuse an export's options before anything is loaded."""
    if license is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license):
        raise InputError(
            f"--license: {license!r} is no licence id. Allowed: one of the hub's, such as apache-2.0, cc-by-4.0 or "
            "other"
        )
    # the hub's rules: 96 characters, endings included; no `--`, no `..`, no `-` or `.` at an end
    part = r"(?!.*(?:--|\.\.))[A-Za-z0-9_][\w.-]{0,87}(?<![.-])"
    if repository is not None and not re.fullmatch(f"{part}/{part}", repository, re.ASCII):
        raise InputError(
            f"--push: {repository!r} names no repository. Allowed: OWNER/NAME, each of letters, digits, `-`, `_` and "
            "`.`, and of at most 88 characters"
        )
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(
            f"--to: {target} is there already, and is not an empty folder. Nothing is overwritten: give another one"
        )
    if target.resolve() == Path.cwd():  # it would be replaced under the user's feet
        raise InputError(f"--to: {target} is the folder that this was started in. Give a new one, such as export")
