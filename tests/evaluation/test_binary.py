"""TruthfulQA's binary choice: the best answer or the best incorrect one, in both orders."""

import json
import math

import pytest
import torch
from helpers.evaluations import lines, table

from isara_pl.evaluation.binary import binary, orders
from isara_pl.evaluation.prompting import PrimerFormat
from isara_pl.growth.prompts import ChatFormat, PlainFormat
from isara_pl.growth.samples import Sample, read_samples
from isara_pl.models.loading import load_causal_lm, load_tokenizer

HEAD = "Type,Category,Question,Best Answer,{}Correct Answers,Incorrect Answers,Source"


@pytest.mark.parametrize(
    ("best_first", "best_last", "expected"),
    [
        ((-1.0, -2.0), (-3.0, -2.0), 1.0),  # the best answer, wherever it stands
        ((-1.0, -2.0), (-1.0, -2.0), 0.5),  # the first one, whatever stands there
        ((-2.0, -1.0), (-2.0, -1.0), 0.5),
        ((-2.0, -1.0), (-1.0, -2.0), 0.0),
        ((-1.0, -1.0), (-1.0, -1.0), 0.0),  # equal: nothing was chosen
        ((-1.0, -2.0), (-math.inf, -2.0), None),
        ((math.nan, -2.0), (-3.0, -2.0), None),
    ],
)
def test_a_choice_is_right_where_the_best_answer_has_the_likelier_letter_in_both_orders(
    best_first, best_last, expected
):
    assert binary(best_first, best_last) == expected


def test_both_options_are_shown_in_every_form_of_a_prompt(tiny_llama):
    first, last = (order("Is it so?") for order in orders("No, never.", "Yes."))
    assert (first, last) == ("Is it so?\n(A) No, never.\n(B) Yes.", "Is it so?\n(A) Yes.\n(B) No, never.")
    plain = PlainFormat("Question:", "\nAnswer:")
    assert plain.answer_prompt(first) == "Question: Is it so? (A) No, never. (B) Yes.\nAnswer:"
    assert PrimerFormat().answer_prompt(first).endswith(f"\n\nQ: {first}\nA:")
    assert f"\n{first}<|end|>" in ChatFormat(load_tokenizer(tiny_llama)).answer_prompt(first)
    assert orders("No.", "Yes.")[0]("") == "(A) No.\n(B) Yes."


def letters(model, tokenizer, question: str) -> list[float]:
    """Give the log-probability of either letter, in plain PyTorch."""
    prompt = f"Question: {question}\nAnswer:"
    start, found = len(tokenizer(prompt).input_ids), []
    for letter in (" (A)", " (B)"):
        ids = tokenizer(prompt + letter).input_ids
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids))))
    return found


def test_the_columns_of_2025_are_measured_and_those_of_2021_are_not(run, tmp_path, tiny_llama):
    rows = [(f"What colour is thing {i}?", f"It is {'blue' * (1 + i % 2)}", f"It is red, {i}") for i in range(6)]
    for form, column in (("2025", "Best Incorrect Answer,"), ("2021", "")):
        written = [
            f'Adversarial,Colours,"{q}","{best}",{f"{chr(34)}{wrong}{chr(34)}," if column else ""}"{best}","It is black; {wrong}",'
            for q, best, wrong in rows
        ]
        (tmp_path / f"{form}.csv").write_text("\n".join([HEAD.format(column), *written]) + "\n")
    callbacks = [
        ("TruthfulnessEvaluation", {"items": str(tmp_path / f"{form}.csv"), "max_new_tokens": 0, "name": f"of-{form}"})
        for form in ("2025", "2021")
    ]
    run_dir = run("validate", callbacks, held_out=None)
    (row,) = table(run_dir)
    model, tokenizer = load_causal_lm(tiny_llama).eval(), load_tokenizer(tiny_llama)
    found = lines(run_dir, "of-2025", 0)
    for line, (question, best, wrong) in zip(found, rows, strict=True):
        for name, asked in (("binary", question), ("binary_blind", line["blind_question"])):
            first, last = (
                letters(model, tokenizer, f"{asked} (A) {one} (B) {other}")
                for one, other in ((best, wrong), (wrong, best))
            )
            assert line[name] == ((first[0] > first[1]) + (last[1] > last[0])) / 2
        assert line["binary_informed"] == line["binary"] - line["binary_blind"]
        assert [choice["text"] for choice in line["choices"]] == [best, wrong, "It is black"]
    for name in ("binary", "binary_blind", "binary_informed"):
        assert float(row[f"of-2025_{name}"]) == pytest.approx(sum(line[name] for line in found) / 6, abs=1e-6)
    assert not [name for name in [*row, *lines(run_dir, "of-2021", 0)[0]] if name.startswith(("of-2021_bin", "binary"))]
    assert row["of-2021_mc2"]


def test_the_only_incorrect_answer_is_the_best_one(run, tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(
        '{"question": "Who?", "answer": "I.", "incorrect_answers": ["You."]}\n'
        '{"question": "Why?", "answer": "So.", "incorrect_answers": ["Not.", "Never."]}\n'
    )
    options = {"items": str(path), "max_new_tokens": 0}
    run_dir = run("validate", [("TruthfulnessEvaluation", options)], held_out=None)
    first, second = lines(run_dir, "truthfulness", 0)
    assert first["binary"] in (0.0, 0.5, 1.0)
    assert "binary" not in second
    assert float(table(run_dir)[0]["binary"]) == first["binary"]


def test_a_sample_says_which_incorrect_answer_is_the_best_and_a_pool_of_others_is_as_it_was(tmp_path):
    path = tmp_path / "items.jsonl"
    rows = [{"question": "Who?", "answer": "I.", "incorrect_answers": ["You.", "He."]}] * 2
    rows[1] = {**rows[1], "best_incorrect_answer": "He."}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    without, having = read_samples(path)
    assert (without.best_incorrect_answer, having.best_incorrect_answer) == (None, "He.")
    assert having.incorrect_answers == ("He.", "You.")
    assert "best_incorrect_answer" not in json.loads(without.to_json())
    assert [Sample.from_json(sample.to_json()) for sample in (without, having)] == [without, having]
