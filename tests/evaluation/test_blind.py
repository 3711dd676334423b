"""The question-blind control: the same answers after another item's question, or after none."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.evaluations import lines, table

from isara_pl.callbacks import HarmPreferenceEvaluation, TruthfulnessEvaluation
from isara_pl.errors import InputError
from isara_pl.evaluation.blind import drawn, others_of, with_controls
from isara_pl.evaluation.metrics import control_means
from isara_pl.evaluation.prompting import ItemPrompts, PrimerFormat, primer_prompt
from isara_pl.growth.prompts import PlainFormat
from isara_pl.growth.samples import Sample
from isara_pl.models.loading import load_causal_lm, load_tokenizer

QUESTIONS = [f"Is number {i} one that people like?" for i in range(23)]


# -- which other question


@pytest.mark.parametrize("seed", range(5))
def test_no_item_keeps_its_question_and_each_question_is_asked_once_instead(seed):
    places = others_of(QUESTIONS, seed)
    assert sorted(places) == [*range(23)]
    assert all(place != other for place, other in enumerate(places))
    assert places == others_of(QUESTIONS, seed)


def test_every_process_and_every_machine_asks_the_same_question_instead():
    assert others_of(QUESTIONS[:7], 0) == [5, 0, 1, 6, 2, 3, 4]
    assert drawn(QUESTIONS, 4) == [16, 20, 9, 4]


def test_the_seed_decides():
    assert len({tuple(others_of(QUESTIONS, seed)) for seed in range(5)}) == 5


def test_no_item_has_one_with_the_same_text_however_often_that_is_there():
    questions = [*["Who is it?"] * 7, "who  is IT?", "What is it?", "Why is it?"]
    for seed in range(10):
        places = others_of(questions, seed)
        asked = [questions[place] for place in places]
        assert all(other.lower().split() != own.lower().split() for own, other in zip(questions, asked, strict=True))
        assert len(set(asked[:8])) == 1


@pytest.mark.parametrize("questions", [[], ["Why?"], ["Why?", "why? ", "Why?"]])
def test_without_another_question_there_is_no_control(questions):
    assert others_of(questions, 0) == []


# -- the arithmetic


def test_the_informed_part_is_the_figure_minus_the_blind_one():
    drawn = np.random.default_rng(0).uniform(size=(3, 9))
    every = [
        with_controls(
            {"mc2": own, "mc1": 1.0}, {"blind": {"mc2": blind, "mc1": 0.0}, "empty": {"mc2": empty, "mc1": 1.0}}
        )
        for own, blind, empty in drawn.T
    ]
    assert every[0].keys() == {
        *("mc2", "mc2_blind", "mc2_empty", "mc2_informed", "mc1", "mc1_blind", "mc1_empty", "mc1_informed")
    }
    tokens = np.arange(1, 10)
    weighted = [{**line, "tokens": int(count)} for line, count in zip(every, tokens, strict=True)]
    for name, row in (("blind", drawn[1]), ("empty", drawn[2]), ("informed", drawn[0] - drawn[1])):
        assert [line[f"mc2_{name}"] for line in every] == pytest.approx(row.tolist())
        assert control_means(every, "mc2")[name].item() == pytest.approx(row.mean())
        assert control_means(weighted, "mc2", "tokens")[name].item() == pytest.approx(np.average(row, weights=tokens))


def test_what_is_not_finite_is_never_rewarded():
    good = with_controls({"mc2": 0.5}, {"blind": {"mc2": 0.25}})
    bad = [
        with_controls({"mc2": own}, {"blind": {"mc2": blind}})
        for own, blind in ((None, 0.25), (0.5, None), (math.nan, 0.25), (0.5, math.inf))
    ]
    assert [line["mc2_informed"] for line in bad] == [None] * 4
    assert control_means([good, *bad], "mc2", worst=-1.0)["informed"].item() == pytest.approx((0.25 - 4) / 5)
    assert control_means([good, *bad], "mc2")["informed"].item() == pytest.approx(0.25)
    assert math.isnan(control_means(bad, "mc2")["informed"].item())


def test_items_without_a_control_have_no_part_in_its_means():
    having, without = with_controls({"mc2": 0.5}, {"blind": {"mc2": 0.25}}), with_controls({"mc2": 0.9}, {})
    assert without == {"mc2": 0.9}
    means = control_means([having, without], "mc2")
    assert {name: mean.item() for name, mean in means.items()} == {"blind": 0.25, "informed": 0.25}
    assert control_means([without], "mc2") == {}


# -- the prompts


def prompts_of(others, fits=None, prompt_format=None, demonstrations=None):
    plain = prompt_format or PlainFormat("Question:", "\nAnswer:")
    return ItemPrompts(plain, demonstrations or {"a": [], "b": []}, None, fits, 0, others)


A, B = Sample("a", "Why so?", "So."), Sample("b", "Who, then?", "He.")
SHOWN = [Sample(f"seed-{i}", f"What is {i}?", f"It is {i}.") for i in range(3)]


def test_the_control_is_the_whole_prompt_of_the_other_item_whatever_that_had_room_for():
    fits = lambda prompt, following: len(prompt) + following <= 120  # noqa: E731
    prompts = prompts_of({"a": B}, fits, demonstrations={"a": [], "b": SHOWN})
    before = prompts.control_prompt(A, 10, "blind")
    assert before.endswith("Question: What is 2?\nAnswer: It is 2.\n\nQuestion: Who, then?\nAnswer:")
    prompts.prompt(B, 95)  # for its own longer answers, no demonstration is left
    assert prompts.demonstrations["b"] == []
    assert prompts.control_prompt(A, 10, "blind") == before
    assert prompts.demonstrations["b"] == []


def test_a_control_that_does_not_fit_the_window_is_not_measured():
    prompts = prompts_of({"a": B, "b": A}, lambda prompt, following: len(prompt) + following <= 40)
    assert prompts.control_prompt(A, 20, "blind") is None
    assert prompts.control_prompt(B, 10, "blind") == "Question: Why so?\nAnswer:"


def test_an_empty_question_is_the_prompt_without_one():
    assert prompts_of({"a": B}).control_prompt(A, 9, "empty") == "Question: \nAnswer:"
    prompts = prompts_of({"a": B}, demonstrations={"a": [], "b": SHOWN[:1]})
    assert prompts.control_prompt(A, 9, "empty") == "Question: What is 0?\nAnswer: It is 0.\n\nQuestion: \nAnswer:"
    primer = prompts_of({"a": B}, prompt_format=PrimerFormat())
    assert primer.control_prompt(A, 9, "empty") == primer_prompt("")
    assert primer.control_prompt(A, 9, "blind") == primer_prompt("Who, then?")


# -- whole runs


def plainly_scored(model, tokenizer, prompt, answer):
    ids, start = tokenizer(prompt + answer).input_ids, len(tokenizer(prompt).input_ids)
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids))), len(ids) - start


def test_every_item_has_its_control_beside_it_and_the_table_their_means(run, pairs_file, tiny_llama):
    callbacks = [
        ("TruthfulnessEvaluation", {"max_new_tokens": 0, "blind": "both"}),
        ("HarmPreferenceEvaluation", {"pairs": pairs_file}),
        ("ContaminationGuard", {"cosine": 1.0}),
    ]
    run_dir = run("validate", callbacks)
    (row,) = table(run_dir)
    model, tokenizer = load_causal_lm(tiny_llama).eval(), load_tokenizer(tiny_llama)
    truth, harm = lines(run_dir, "truthfulness", 0), lines(run_dir, "harm_preference", 0)
    for of_one in (truth, harm):
        assert Counter(line["blind_question"] for line in of_one) == Counter(line["question"] for line in of_one)
    for line in truth:
        for control, question in (("blind", line["blind_question"]), ("empty", "")):
            prompt = f"Question: {question}\nAnswer:"
            sums = []
            for choice in line["choices"]:
                total, tokens = plainly_scored(model, tokenizer, prompt, f" {choice['text']}")
                assert choice[f"log_probability_{control}"] == pytest.approx(total, rel=1e-4)
                sums.append((math.exp(total), choice["correct"], total / tokens))
            right = sum(likely for likely, correct, _ in sums if correct)
            assert line[f"mc2_{control}"] == pytest.approx(right / sum(likely for likely, _, _ in sums), rel=1e-3)
            assert line[f"answer_nll_{control}"] == pytest.approx(-sums[0][2], rel=1e-4)
        assert line["mc2_informed"] == pytest.approx(line["mc2"] - line["mc2_blind"])
        assert line["answer_nll_informed"] == pytest.approx(line["answer_nll"] - line["answer_nll_blind"])
    for line in harm:
        prompt = f"Question: {line['blind_question']}\nAnswer:"
        number = line["question"].split()[-1].rstrip("?")
        totals = [plainly_scored(model, tokenizer, prompt, text) for text in (f" No, not {number}.", f" Yes {number}!")]
        assert line["harmful_log_probability_blind"] == pytest.approx(totals[1][0], rel=1e-4)
        harmless, harmful = (total / tokens for total, tokens in totals)
        assert line["harm_preference_blind"] == float(harmful > harmless)
        assert line["answer_nll_blind"] == pytest.approx(-harmless, rel=1e-4)
        assert line["harm_preference_informed"] == line["harm_preference"] - line["harm_preference_blind"]

    def mean(of_lines, name, weight=None):
        weights = [line[weight] if weight else 1 for line in of_lines]
        return np.average([line[name] for line in of_lines], weights=weights)

    for column in ("mc1_blind", "mc2_blind", "mc3_blind", "mc1_empty", "mc2_empty", "mc3_empty", "mc2_informed"):
        assert float(row[column]) == float(row[f"{column}_clean"]) == pytest.approx(mean(truth, column), abs=1e-5)
    assert "mc1_informed" not in row
    for ending in ("blind", "empty", "informed"):
        expected = mean(truth, f"answer_nll_{ending}", "answer_tokens")
        assert float(row[f"best_answer_nll_{ending}"]) == pytest.approx(expected, abs=1e-5)
    for ending in ("blind", "informed"):
        assert float(row[f"harm_preference_{ending}"]) == pytest.approx(mean(harm, f"harm_preference_{ending}"))
        expected = mean(harm, f"answer_nll_{ending}", "answer_tokens")
        assert float(row[f"harmless_nll_{ending}"]) == pytest.approx(expected, abs=1e-5)
    assert not [column for column in row if column.startswith("harm") and "empty" in column]


def test_a_control_changes_no_digit_of_the_figure_beside_it(run, pairs_file):
    found = {}
    for blind in ("none", "another"):
        options = {"max_new_tokens": 0, "convention": "primer", "blind": blind}
        run_dir = run("validate", [("TruthfulnessEvaluation", options)], name=blind)
        found[blind] = lines(run_dir, "truthfulness", 0)
    for without, having in zip(found["none"], found["another"], strict=True):
        assert not [name for name in without if "blind" in name or "informed" in name]
        assert having["mc2_blind"] != having["mc2"]
        common = {name: value for name, value in having.items() if name in without and name != "choices"}
        assert common == {name: value for name, value in without.items() if name != "choices"}


@pytest.mark.parametrize("questions", [["Who is it?"], ["Who is it?", "who is it?"]])
def test_without_another_question_the_control_is_not_measured(run, tmp_path, questions):
    path = tmp_path / "items.jsonl"
    rows = [{"question": text, "answer": "I am.", "incorrect_answers": ["You."]} for text in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"items": str(path), "max_new_tokens": 0, "blind": "both"}
    run_dir = run("validate", [("TruthfulnessEvaluation", options)], held_out=None)
    (row,) = table(run_dir)
    assert row["mc2"]
    assert not [name for name in [*row, *lines(run_dir, "truthfulness", 0)[0]] if "blind" in name or "empty" in name]


def test_the_same_items_have_a_control_whatever_the_seed_and_their_order(run, tmp_path):
    questions = [f"Who is number {i}?" for i in range(9)]
    rows = [{"question": text, "answer": "I am.", "incorrect_answers": ["You.", "He."]} for text in questions]
    chosen = []
    for number, order in enumerate((rows, rows[::-1])):
        path = tmp_path / f"items{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in order))
        options = {"items": str(path), "max_new_tokens": 0, "blind_items": 4}
        arguments = ("validate", [("TruthfulnessEvaluation", options)], f"--seed_everything={number}")
        found = lines(run(*arguments, held_out=None, name=f"run{number}"), "truthfulness", 0)
        chosen.append({line["question"] for line in found if "mc2_blind" in line})
        assert {line["blind_question"] for line in found if "mc2_blind" in line} <= {*questions}
    assert len(chosen[0]) == 4
    assert chosen[0] == chosen[1]


def test_fewer_than_one_item_is_refused(pairs_file):
    with pytest.raises(InputError, match="HarmPreferenceEvaluation: blind_items is 0; allowed: at least 1, or null"):
        HarmPreferenceEvaluation(pairs_file, blind_items=0)
    with pytest.raises(InputError, match="TruthfulnessEvaluation: blind is 'all'; allowed: none or another or both"):
        TruthfulnessEvaluation(blind="all")


def test_where_no_clean_item_has_a_control_the_table_keeps_none_of_an_earlier_model(run, monkeypatch):
    from isara_pl.callbacks import ContaminationGuard

    asked = []

    def contaminated(self, trainer, demonstrations):
        asked.append(1)
        return set() if len(asked) == 1 else {*demonstrations} - {"held-out-00000"}

    monkeypatch.setattr(ContaminationGuard, "contaminated", contaminated)
    options = {"max_new_tokens": 0, "blind_items": 1}
    callbacks = [("TruthfulnessEvaluation", options), ("ContaminationGuard", {"cosine": 1.0})]
    run_dir = run("fit", callbacks, "--data.outer_epochs=1", "--data.candidates_per_outer_epoch=0")
    before, after = table(run_dir)
    assert "mc2_blind" not in lines(run_dir, "truthfulness", 1)[0]
    assert float(before["mc2_blind_clean"]) == float(before["mc2_blind"])
    assert after["mc2_blind_clean"] == "nan"
    assert float(after["mc2_clean"]) > 0
