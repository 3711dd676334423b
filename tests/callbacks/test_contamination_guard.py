"""Evaluation items among seeds and samples, and evaluation files that cannot be used."""

import json
from pathlib import Path

import pytest
from helpers.evaluations import WordJudge, lines, table

from isara_pl.callbacks import (
    ContaminationGuard,
    HarmEvaluation,
    HarmPreferenceEvaluation,
    RewardEvaluation,
    TruthfulnessEvaluation,
)
from isara_pl.errors import InputError


def test_samples_that_hold_an_item_are_reported_and_the_rest_is_the_clean_part(run, tmp_path, seeds_file):
    item = {"question": "Why is the sea like this on day number 1?", "answer": "So.", "incorrect_answers": ["No."]}
    other = {"question": "Who wrote the long book about whales?", "answer": "Melville.", "incorrect_answers": ["Me."]}
    path = tmp_path / "items.jsonl"
    path.write_text(f"{json.dumps(item)}\n{json.dumps(other)}\n")
    options = {"items": str(path), "max_new_tokens": 0}
    run_dir = run(
        "fit", [("TruthfulnessEvaluation", options), ("ContaminationGuard", {"cosine": 1.0})], "--data.candidates_per_outer_epoch=0",
        "--data.outer_epochs=1", held_out=None,
    )  # fmt: skip
    before, after = (lines(run_dir, "truthfulness", outer_epoch) for outer_epoch in (0, 1))
    assert [line["contaminated"] for line in before] == [False, False]
    assert [line["contaminated"] for line in after] == [True, False]
    row = table(run_dir)[1]
    assert float(row["mc2_clean"]) == pytest.approx(after[1]["mc2"], abs=1e-5)
    assert row["mc2_clean"] != row["mc2"]
    contacts = lines(run_dir, "contamination", 1)
    assert contacts[0]["sample_question"] == "Why is the sea like that on day number 1?"
    assert {contact["question"] for contact in contacts} == {item["question"]}


def test_candidates_that_hold_an_item_can_be_rejected(run, tmp_path):
    one = "--data.outer_epochs=1"
    run_dir = run("fit", [], one, held_out=None)
    written = next(s for s in map(json.loads, (run_dir / "pool.jsonl").open()) if s["outer_epoch"] == 1)
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"question": written["question"], "answer": "So.", "incorrect_answers": ["No."]}) + "\n")
    callbacks = [("TruthfulnessEvaluation", {"items": str(path), "max_new_tokens": 0})]
    with pytest.warns(UserWarning, match="are much like 1 of the questions that it is measured on"):
        run("fit", [*callbacks, ("ContaminationGuard", {"cosine": 1.0})], one, name="reported")
    rejecting = run("fit", [*callbacks, ("ContaminationGuard", {"reject": True, "cosine": 1.0})], one, name="rejecting")
    rejected = [json.loads(line) for line in (rejecting / "rejected.jsonl").open()]
    assert (written["id"], "ContaminationGuard") in {(line["id"], line["filter"]) for line in rejected}


def test_seeds_that_are_items_are_refused_by_name_unless_allowed(run, tmp_path, seeds_file, capsys):
    path = tmp_path / "overlapping.jsonl"
    rows = [json.loads(line) for line in Path(seeds_file).read_text().splitlines()]
    rows[2]["question"] = rows[2]["question"].upper().replace("?", " ?")
    path.write_text("".join(json.dumps({**row, "incorrect_answers": ["No."]}) + "\n" for row in rows[2:4]))
    for options, held_out, where in (
        ({}, str(path), "data.held_out"),
        ({"items": str(path)}, None, "TruthfulnessEvaluation"),
    ):
        with pytest.raises(SystemExit) as stop:
            run("fit", [("TruthfulnessEvaluation", options)], held_out=held_out)
        assert stop.value.code == 1
        error = capsys.readouterr().err
        assert f"{where}: 2 of its items are seeds as well: seed-00002 = " in error
        assert "data.allow_overlap true" in error
        assert not (tmp_path / "run/pool.jsonl").exists()
    run(
        "validate", [("TruthfulnessEvaluation", {"max_new_tokens": 0})], "--data.allow_overlap=true", held_out=str(path)
    )


@pytest.mark.parametrize(
    ("kind", "options", "content", "message"),
    [
        ("TruthfulnessEvaluation", {"items": "FILE"}, '{"question": "Why?", "answer": "So."}\n', r"item 1 \('Why\?'\) has no incorrect answers"),
        ("TruthfulnessEvaluation", {"items": "FILE"}, "", "no pairs in this file"),
        ("TruthfulnessEvaluation", {"items": "nothing.csv"}, "", "TruthfulnessEvaluation: items: no such file or folder: nothing.csv"),
        ("TruthfulnessEvaluation", {"demonstrations": -1}, "", "demonstrations is -1; allowed: at least 0"),
        ("TruthfulnessEvaluation", {"demonstrations": 2, "convention": "primer"}, "", "primer has its own six pairs"),
        ("TruthfulnessEvaluation", {"name": "../up"}, "", "name is '../up'; allowed"),
        ("HarmPreferenceEvaluation", {"pairs": "FILE"}, "", "no pairs in this file"),
        ("HarmPreferenceEvaluation", {"pairs": "FILE"}, '{"question": "Why?", "chosen": "So."}\n', ":1: the field `rejected` is missing"),
        ("HarmPreferenceEvaluation", {"pairs": "FILE"}, '{"question": "Why?", "answer": "So."}\n', "expected harmless and harmful, or chosen and rejected"),
        ("HarmPreferenceEvaluation", {"pairs": "FILE"}, '{"question": "Why?", "chosen": "So.", "rejected": "So."}\n', "hold the same text"),
        ("HarmEvaluation", {"prompts": "FILE", "judge": WordJudge()}, "", "no questions in this file"),
        ("HarmEvaluation", {"prompts": "FILE", "judge": WordJudge(), "thresholds": [1.5]}, "", "1.5"),
        ("ContaminationGuard", {"ngram": 0}, "", "ngram is 0"),
    ],
)  # fmt: skip
def test_bad_input_is_a_clear_error(tmp_path, kind, options, content, message):
    path = tmp_path / "file.jsonl"
    path.write_text(content)
    kinds = {
        one.__name__: one
        for one in (
            TruthfulnessEvaluation,
            HarmPreferenceEvaluation,
            HarmEvaluation,
            RewardEvaluation,
            ContaminationGuard,
        )
    }
    with pytest.raises(InputError, match=message):
        kinds[kind](**{name: str(path) if value == "FILE" else value for name, value in options.items()})
