"""Who wins among contestants, and what is said of it."""

import pytest
from helpers.compare import items, write_run

from isara_pl.align.contestants import TITLES
from isara_pl.align.decision import decide
from isara_pl.align.wording import confirmed, gap, table, verdict
from isara_pl.errors import InputError
from isara_pl.results.run import PRETRAINED, Run

ORDER = [PRETRAINED, "icl_knn", "sft", "distill_seeds", "isara", "distill"]
INFORMED = -0.5  # nats a token by which an answer is likelier after its own question


def lines(nll, noise, fold, informed=INFORMED, demonstrations=False, wide=0.0):
    found = items(0, nll, noise, f"fold-{fold}", demonstrations)[fold::2]
    for place, line in enumerate(found):  # some gain much, others lose: the mean stays
        line["answer_nll"] += wide * (1 if place % 2 else -1)
    return [{**line, "answer_nll_informed": informed + line["answer_nll"] % 0.2 - 0.1} for line in found]


@pytest.fixture
def measured(tmp_path):
    """Write runs on two folds, from each contestant's NLL beside the pretrained model's, and its informed part."""

    def write(nlls, informed=INFORMED, icl_informed=None, icl_wide=0.0, before=None):
        runs = []
        for place, (name, nll) in enumerate(nlls.items()):
            for fold in (0, 1):
                path = tmp_path / f"fold-{fold}" / name
                if name == "icl_knn":
                    shown = informed if icl_informed is None else icl_informed
                    write_run(path, {0: lines(nll, 50 + fold, fold, shown, demonstrations=True, wide=icl_wide)})
                else:
                    after = lines(nll, 10 * place + fold, fold, informed)
                    unaligned = lines(0, 90 + fold, fold, informed if before is None else before)
                    write_run(path, {0: unaligned, 1: after}, generated=0)
                runs.append((name, Run(path)))
        return decide(runs, ORDER, "answer_nll", resamples=1000)

    return write


@pytest.mark.parametrize(
    ("nlls", "best", "winner"),
    [
        ({"icl_knn": -0.6, "sft": -0.2, "distill": -0.3}, "icl_knn", "icl_knn"),
        ({"icl_knn": 0.1, "sft": -0.5, "distill": -0.1}, "sft", "sft"),
        ({"icl_knn": -0.1, "sft": -0.2, "distill": -0.5}, "distill", "distill"),
        ({"icl_knn": 0.3, "sft": 0.2, "distill": 0.4}, PRETRAINED, PRETRAINED),
        ({"icl_knn": -0.1, "sft": -0.5, "distill": -0.505}, "distill", "sft"),  # which cannot be told from it
    ],
)
def test_the_simplest_that_is_not_shown_to_be_worse_than_the_best_wins(measured, nlls, best, winner):
    decision = measured(nlls)
    assert (decision.best, decision.winner) == (best, winner)
    said = verdict(decision, TITLES, pairs=60, folds=2)
    assert said[0].startswith("Keep the pretrained model" if winner == PRETRAINED else f"Use {TITLES[winner]}")
    assert ("has the best figure" in " ".join(said)) == (best != winner)
    board = table(decision, TITLES, {"sft": 75.0})
    assert board[1][0].removesuffix(" *") == best
    assert [row[0] for row in board if row[0].endswith("*")] == [f"{winner} *"]


def test_what_only_learned_how_answers_sound_does_not_win(measured):
    nlls = {"icl_knn": 0.1, "sft": -0.5}
    assert measured(nlls).winner == "sft"
    decision = measured(nlls, informed=0.0)
    assert (decision.candidate, decision.winner) == ("sft", PRETRAINED)
    first, second, *_ = verdict(decision, TITLES, pairs=60, folds=2)
    assert first.startswith("Keep the pretrained model")
    assert "how your answers sound, whatever is asked" in second


@pytest.mark.parametrize(("sft", "icl"), [(-0.3, -0.2), (-0.15, -0.2)])
def test_what_is_not_shown_to_be_better_neither_wins_nor_keeps_another_from_winning(measured, sft, icl):
    decision = measured({"icl_knn": icl, "sft": sft}, icl_wide=4.0)
    assert decision.standing("icl_knn").to_pretrained.conclusion == "cannot tell"
    assert decision.winner == "sft"
    assert "than the pretrained model" in verdict(decision, TITLES, pairs=60, folds=2)[0]


def test_where_the_simplest_only_learned_how_answers_sound_the_next_one_wins(measured):
    decision = measured({"icl_knn": -0.5, "sft": -0.5}, icl_informed=0.0)
    assert decision.winner == "sft"


@pytest.mark.parametrize(("before", "words"), [(-0.2, "more than how your answers sound"), (-1.0, "comes from the")])
def test_the_verdict_says_how_much_of_the_gain_comes_from_the_question(measured, before, words):
    decision = measured({"icl_knn": 0.1, "sft": -0.5}, before=before)
    second = verdict(decision, TITLES, pairs=60, folds=2)[1]
    assert words in second
    assert second.startswith("But the gain is in how your answers sound") == (before < INFORMED)


def test_the_gap_between_the_model_with_and_without_demonstrations_is_told(measured):
    assert "there is something to distil" in gap(measured({"icl_knn": -0.6, "sft": -0.2}))
    assert "there is nothing shown to distil" in gap(measured({"icl_knn": 0.6, "sft": -0.2}))


def test_a_measure_that_no_run_has_is_refused_with_those_that_there_are(tmp_path):
    path = tmp_path / "sft"
    write_run(path, {0: lines(0, 1, 0), 1: lines(0, 2, 0)}, generated=0)
    with pytest.raises(
        InputError, match=r"no run has mc1\. Allowed with these pairs: mc2, answer_nll, answer_nll_informed"
    ):
        decide([("sft", Run(path))], ORDER, "mc1")


@pytest.mark.parametrize(("nll", "words"), [(-0.5, "confirm it"), (0.5, "contradict it"), (0.0, "neither confirm nor")])
def test_a_held_out_file_confirms_contradicts_or_neither(measured, nll, words):
    contrast = measured({"sft": nll}).standing("sft").to_pretrained
    assert words in confirmed(contrast, "sft", 60)
