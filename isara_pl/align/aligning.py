"""Aligning a model to given pairs: which method they justify, and what that gives on all of them."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from isara_pl.align.contestants import CONTESTANTS, ICL, SFT, TITLES, merge
from isara_pl.align.decision import Decision, decide, evaluation_with
from isara_pl.align.final import make_best
from isara_pl.align.folds import folds_of
from isara_pl.align.planning import Plan, Speed, last_run, plan_within, speed_of
from isara_pl.align.request import PROBE, Request
from isara_pl.align.trials import RunCommand, Trial, carry_out
from isara_pl.align.wording import gap, table, verdict
from isara_pl.evaluation.contamination import refuse_overlap
from isara_pl.growth.samples import Sample
from isara_pl.report.contents import duration
from isara_pl.report.findings import without_place
from isara_pl.report.overview import write_overview
from isara_pl.results.compare import Section, Table
from isara_pl.results.methods import pool_runs
from isara_pl.results.metrics import aligned
from isara_pl.results.run import PRETRAINED, Run, measured_run
from isara_pl.run.files import write_whole

# the smallest run of the dearest kind
SMALLEST = {"candidates_per_outer_epoch": 8, "outer_epochs": 1, "epochs_per_outer_epoch": 1}
BOARD_MEANS = (
    "Differences with their 95 % intervals, paired over the held-out answers. “Own question” is how much likelier the "
    "answers are after their own question than after another one, in nats a token: where the interval ends below 0, "
    "they follow from it. * is what to use."
)
HELD_OUT_KEPT = "The held-out file was not measured: there is nothing to hold against the pretrained model."
PROBED = 8  # pairs that it trains on, and as many that it measures

Say = Callable[[str], None]
Folds = Sequence[Sequence[Sample]]


def align(asked: Request, run_command: RunCommand, say: Say) -> Decision:
    """Find the simplest method that is not shown to be worse than the best, and apply it to all pairs.

    The same call goes on where it was cut off. What was decided is in `decision.json` and `report.html`; what is to
    be used lies in `best/`: a run folder with the adapter, or the recipe of in-context learning.

    Args:
        asked: What is asked for.
        run_command: Runs a subcommand of Lightning.
        say: Takes each line for the user.

    Raises:
        InputError: If something asked for is not possible; the message says what.
    """
    try:
        return _align(asked, run_command, say)
    except (KeyboardInterrupt, SystemExit):  # the second is how a run ends after Ctrl-C, with its words in its own log
        say("interrupted: what is finished is kept, and the same command goes on from here")
        raise


def _align(asked: Request, run_command: RunCommand, say: Say) -> Decision:
    began = time.monotonic()
    seeds = asked.pairs_at(asked.seeds, "seed")
    folds, remark = folds_of(seeds, asked.folds, asked.seed)
    further = [] if asked.held_out is None else asked.pairs_at(asked.held_out, "held-out")
    refuse_overlap(seeds, further, "--held_out", "pairs of SEEDS")
    asked.refuse_another(seeds)
    if remark:
        say(remark)
    speed = _speed(asked, folds, run_command, say)
    competing = (*CONTESTANTS, *asked.also)
    plan = plan_within(
        asked.budget,
        competing,
        len(folds),
        lambda one, fold: speed.of(asked.on_fold(one, folds, fold)),
        lambda one: last_run(speed, replace(asked.on_fold(one, folds, 0), pairs=len(seeds), items=len(further))),
    )
    for line in plan.lines():
        say(line)
    trials = [asked.on_fold(one, folds, fold) for one in plan.contestants for fold in range(plan.folds)]
    runs = _carried_out(asked, trials, speed, run_command, say)
    order = [PRETRAINED, *(contestant.name for contestant in plan.contestants)]
    decision = decide(runs, order, asked.measure, seed=asked.seed)
    called = {**TITLES, **{contestant.name: contestant.called for contestant in asked.also}}
    took = {name: sum(trial.seconds or 0 for trial in trials if trial.contestant.name == name) for name in order[1:]}
    board = table(decision, called, took)
    say(f"\n{aligned(board)}\n")
    sentences = verdict(decision, called, len(seeds), len(folds)) + ([remark] if remark else [])
    winner = next((one for one in plan.contestants if one.name == decision.winner), None)
    for sentence in sentences:
        say(sentence)
    standings = Section("All contestants", [Table(board[0], board[1:])], [BOARD_MEANS])
    folders = [trial.folder for trial in trials]

    def write_found() -> Path:
        found = {**asdict(decision), "sentences": sentences}
        write_whole(asked.to / "decision.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return write_overview(asked.to, "alignment", _about(asked, seeds, plan), sentences, [standings], folders)

    page = write_found()  # what was found is not lost with the last run
    of_winner = [run for name, run in runs if winner and name == winner.name]
    last = make_best(asked, winner, of_winner, seeds, further, run_command, say) if winner else []
    last += [HELD_OUT_KEPT] if further and not winner else []
    sentences += last
    for sentence in last:
        say(sentence)
    write_found()
    say(f"\n{page}: all contestants, with a page for each run; {duration(time.monotonic() - began)} in all")
    return decision


def _speed(asked: Request, folds: Folds, run_command: RunCommand, say: Say) -> Speed:
    """Measure what this machine takes, unless that is known."""
    known = asked.to / "speed.json"
    if not known.exists():
        say("probe: two small runs, to know how fast this machine is with this model and such pairs")
        # of different folds: near-duplicates are in one; those with more answers first, as they take longest
        pairs, items = folds[0][:PROBED], sorted(folds[-1], key=lambda one: not one.incorrect_answers)[:PROBED]
        dearest = replace(CONTESTANTS[-1], options=merge(CONTESTANTS[-1].options, {"data": SMALLEST}))
        folder = asked.to / PROBE
        shown, grown = (asked.run_on(one, folder, pairs, items, PROBE) for one in (ICL, dearest))
        for trial in (shown, grown):
            carry_out(trial, run_command)
        evaluation_with(asked.measure, pool_runs([(ICL.name, measured_run(shown.folder))], every_outer_epoch=False))
        write_whole(known, json.dumps(asdict(speed_of(shown, grown)), indent=1) + "\n")
    return Speed(**json.loads(known.read_text(encoding="utf-8")))


def _carried_out(
    asked: Request, trials: Sequence[Trial], speed: Speed, run_command: RunCommand, say: Say
) -> list[tuple[str, Run]]:
    """Carry all runs out, one after the other, and say how far it is; those that are finished are read."""
    for trial in trials:
        trial.refuse_other_options()
    runs: list[tuple[str, Run]] = []
    cheap = sum(trial.contestant in (ICL, SFT) for trial in trials)
    for place, trial in enumerate(trials, start=1):
        if trial.seconds is None:
            carry_out(trial, run_command)
            finished = [one for one in trials if one.seconds is not None]
            # what the finished ones took corrects the estimate of those ahead
            factor = sum(one.seconds or 0 for one in finished) / sum(map(speed.of, finished))
            left = factor * sum(speed.of(one) for one in trials if one.seconds is None)
            say(
                f"{place} of {len(trials)}: {trial.contestant.name}, {trial.where}: {duration(trial.seconds)}; "
                f"about {duration(left)} left"
            )
        runs.append((trial.contestant.name, measured_run(trial.folder)))
        if place == cheap:  # the pretrained model is measured by now, with and without demonstrations
            say(gap(decide(runs, [PRETRAINED, ICL.name, SFT.name], asked.measure, seed=asked.seed)))
    return runs


def _about(asked: Request, seeds: Sequence[Sample], plan: Plan) -> list[tuple[str, str]]:
    return [
        ("Model", without_place(asked.model)),
        ("Given pairs (seeds)", f"{len(seeds)} ({asked.seeds.name})"),
        ("Parts measured", f"{plan.folds} of {plan.of_folds}"),
        ("Decided by", asked.decide_by),
    ]
