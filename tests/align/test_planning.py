"""What a budget leaves out, and what a run is estimated to take."""

from dataclasses import replace
from pathlib import Path

import pytest

from isara_pl.align.contestants import CONTESTANTS, ICL, SFT, Contestant, configuration, evaluation_of
from isara_pl.align.planning import Speed, last_run, plan_within
from isara_pl.align.trials import Trial
from isara_pl.errors import InputError

SECONDS = {"icl_knn": 5, "sft": 20, "distill_seeds": 30, "isara": 60, "distill": 70}


def planned(budget):
    return plan_within(
        budget,
        CONTESTANTS,
        4,
        lambda contestant, fold: SECONDS[contestant.name],
        lambda contestant: 2 * SECONDS[contestant.name] if contestant.trains else 0,
    )


def test_without_a_budget_all_compete_on_all_folds():
    plan = planned(None)
    assert (plan.contestants, plan.folds, plan.dropped) == ([*CONTESTANTS], 4, [])
    assert (plan.seconds, plan.last) == (4 * 185, 140)
    assert "about 12 min 20 s, and up to 2 min 20 s for the winner" in plan.lines()[0]


@pytest.mark.parametrize(
    ("budget", "folds", "dropped"),
    [(880, 4, []), (879, 3, []), (510, 2, []), (509, 2, ["distill"]), (200, 2, ["isara", "distill"])],
)
def test_a_budget_drops_folds_first_and_then_the_dearest(budget, folds, dropped):
    plan = planned(budget)
    assert (plan.folds, sorted(plan.dropped)) == (folds, sorted(dropped))
    assert plan.seconds + plan.last <= budget
    assert ("--budget" in " ".join(plan.lines())) == (folds < 4 or bool(dropped))
    assert all(name in " ".join(plan.lines()) for name in dropped)


def test_a_budget_in_which_nothing_can_be_compared_is_refused():
    with pytest.raises(InputError, match=r"1 min 0 s is too short: icl_knn and sft on 2 parts .* about 1 min 30 s"):
        planned(60)


def trial(contestant):
    held_out = Path("held_out")
    measuring = [evaluation_of(contestant, held_out, "answer_nll")]
    common = {"model": {"name": "m"}}
    config = configuration(contestant, common, Path("seeds"), Path("run"), 0, (90, 120), held_out, measuring)
    return Trial(contestant, config, pairs=50, items=10, where="part 1 of 4")


def test_an_estimate_counts_what_a_run_measures_writes_and_trains_on():
    speed = Speed(start=1, item=10, shown_item=20, candidate=100, pair=1000)
    by_name = {contestant.name: trial(contestant) for contestant in CONTESTANTS}
    assert speed.of(by_name[ICL.name]) == 1 + 20 * 10
    # a fifth of the pairs is kept back, and measured after each of four passes
    assert speed.of(by_name[SFT.name]) == 1 + 10 * (20 + 40) + 1000 * 40 * 4
    assert speed.of(by_name["distill_seeds"]) == 1 + 10 * 20 + 1000 * (50 * 4 + 50)
    assert speed.of(by_name["isara"]) == 1 + 10 * 20 + 100 * 32 + 1000 * (50 + 32) * 2


def test_a_further_method_is_measured_as_all_others_are_and_with_their_model():
    own = {
        "model": {"name": "another", "learning_rate": 3e-3},
        "data": {"seeds": "theirs.csv", "epochs_per_outer_epoch": 8},
        "trainer": {
            "callbacks": [
                {"class_path": "isara_pl.callbacks.TruthfulnessEvaluation", "init_args": {"max_new_tokens": 64}},
                {"class_path": "isara_pl.callbacks.ContaminationGuard"},
            ]
        },
    }
    config = trial(Contestant("longer", "longer", options=own)).config
    assert config["model"] == {"lora": {"r": 8, "alpha": 16}, "name": "m", "learning_rate": 3e-3}
    assert (config["data"]["seeds"], config["data"]["epochs_per_outer_epoch"]) == ("seeds", 8)
    guard, measured = config["trainer"]["callbacks"]
    assert guard["class_path"].endswith("ContaminationGuard")
    assert measured["init_args"] == {"max_new_tokens": 0}


def test_demonstrations_are_shown_in_every_evaluation_of_ours_and_a_further_method_may_leave_options_out():
    refusal = "isara_pl.callbacks.RefusalEvaluation"
    added = [{"class_path": refusal, "init_args": {"prompts": "xstest.csv"}}, "isara_pl.callbacks.TooShort"]
    common = {"model": {"name": "m"}, "trainer": {"callbacks": added}}
    for contestant, shown in ((ICL, {"demonstrations": 5, "context": "knn"}), (SFT, {})):
        config = configuration(contestant, common, Path("seeds"), Path("run"), 0, (90, 120))
        assert config["trainer"]["callbacks"][0] == {
            "class_path": refusal,
            "init_args": {"prompts": "xstest.csv"} | shown,
        }
    bare = Contestant("bare", "bare", options={"model": {"learning_rate": 3e-3}})
    assert (
        Speed(start=1, item=10, shown_item=20, candidate=0.5, pair=0).of(trial(bare)) == 1 + 10 * 10 * 5 + 0.5 * 512 * 4
    )


def test_what_the_last_run_takes_holds_the_held_out_pairs():
    speed = Speed(start=1, item=10, shown_item=20, candidate=100, pair=1000)
    icl = trial(ICL)
    assert last_run(speed, replace(icl, items=0)) == 0
    assert last_run(speed, replace(icl, items=3)) == (1 + 20 * 3) + (1 + 10 * 3)
    assert last_run(speed, replace(trial(SFT), items=3)) == speed.of(replace(trial(SFT), items=3))
