"""What is to be used: the winner, made of all pairs."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isara_pl.align.contestants import DECIDING, SFT, Contestant, Options, merge, rows_of
from isara_pl.align.decision import evaluation_with
from isara_pl.align.recipe import PAIRS, write_recipe
from isara_pl.align.request import HELD_OUT, Request
from isara_pl.align.trials import RunCommand, Trial, carry_out, lines_of
from isara_pl.align.wording import confirmed
from isara_pl.growth.samples import Sample
from isara_pl.results.comparison import evaluate
from isara_pl.results.methods import pool_runs
from isara_pl.results.run import PRETRAINED, Run, measured_run

BEST = "best"  # the folder
LAST: Options = {"model": DECIDING["model"]}  # measured as on the folds, but with answers to read


def make_best(
    asked: Request,
    winner: Contestant,
    runs: Sequence[Run],
    seeds: Sequence[Sample],
    items: Sequence[Sample],
    run_command: RunCommand,
    say: Callable[[str], None],
) -> list[str]:
    """Make the winner of all pairs, measure it once more where there is a held-out file, and say where it lies.

    Args:
        asked: What was asked for.
        winner: The contestant that won.
        runs: Its runs on the folds.
        seeds: All pairs.
        items: The held-out ones, if any.
        run_command: Runs a subcommand of Lightning.
        say: Takes a line for the user.
    """
    folder = asked.to / BEST
    chosen = _with_chosen_passes(winner, runs)

    def trial(contestant: Contestant) -> Trial:
        return asked.run_on(contestant, folder, seeds, items, "all pairs", options=LAST)

    if _is_of_others(folder, rows_of(items, asked.measure), winner):
        shutil.rmtree(folder)
    final = trial(chosen)
    if final.is_of_other_options:
        shutil.rmtree(folder)
        final = trial(chosen)
    said = []
    if winner.trains or items:
        say(f"{winner.name} {f'on all {len(seeds)} pairs' if winner.trains else 'on the held-out file'} …")
        carry_out(final, run_command)
    if items:
        measured = [(winner.name, measured_run(final.folder))]
        if not winner.trains:
            before = trial(Contestant(PRETRAINED, PRETRAINED, trains=False))
            carry_out(before, run_command)
            measured.append((PRETRAINED, measured_run(before.folder)))
        said.append(_once_more(measured, winner.name, asked.measure, asked.seed))
    if winner.trains:
        kept_back = final.config["data"].get("validation_share", 0)  # of the user's own options
        but = f" but the share of {kept_back} that data.validation_share keeps back" if kept_back else ""
        return [*said, f"{final.folder / 'adapter'}: the LoRA adapter, trained on all {len(seeds)} pairs{but}"]
    write_recipe(folder, seeds, final.config, asked.seed)
    return [*said, f"{folder}: the recipe: demonstrations.jsonl, questions.faiss and prompt.txt"]


def _is_of_others(folder: Path, rows: Sequence[dict[str, Any]], winner: Contestant) -> bool:
    """Say whether an earlier decision left what is there: of another winner, or measured on other held-out pairs.

    Held-out pairs decide nothing, so the same run is made again and measured on these.
    """
    made_with = folder / HELD_OUT
    known = made_with.read_text(encoding="utf-8") if made_with.exists() else ""
    others = {path.stem for path in folder.glob("*.yaml")} - {winner.name, PRETRAINED}
    recipe = winner.trains and (folder / PAIRS).exists()
    return folder.exists() and (known != lines_of(rows) or bool(others) or recipe)


def _with_chosen_passes(winner: Contestant, runs: Sequence[Run]) -> Contestant:
    """Give SFT as many passes as its runs chose on average, and no part held back to choose by; others as they are."""
    if winner is not SFT:
        return winner
    best = [run.metrics[1]["best_epoch"] for run in runs]
    own = {"validation_share": 0, "epochs_per_outer_epoch": max(1, round(sum(best) / len(best)))}
    return replace(winner, options=merge(winner.options, {"data": own}), callbacks=())


def _once_more(runs: Sequence[tuple[str, Run]], name: str, measure: str, seed: int) -> str:
    entries = pool_runs(runs, every_outer_epoch=False)
    baseline = next(entry for entry in entries if entry.name == PRETRAINED)
    evaluated = evaluate(evaluation_with(measure, entries), entries, baseline, seed=seed)
    found = next((c for c in evaluated.contrasts if (c.method, c.measure) == (name, measure)), None)
    return confirmed(found, name, evaluated.items)
