"""What the models answer to held-out questions."""

import json
from pathlib import Path

import pytest
from helpers.command_line import SEEDS_ALONE, fit
from helpers.evaluations import lines

from isara_pl.callbacks import held_out_answers
from isara_pl.callbacks.held_out_answers import NAME, HeldOutAnswers
from isara_pl.errors import InputError
from isara_pl.results.answers import answers_of, read_answers

ASKED = "--held_out_answers.questions=2"
ONE = "--data.outer_epochs=1"


@pytest.fixture
def held_out(tmp_path) -> Path:
    path = tmp_path / "held_out.jsonl"
    pairs = [
        {"question": f"What is number {n}?", "answer": f"It is {n}.", "incorrect_answers": ["No."]} for n in range(6)
    ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


@pytest.mark.slow
def test_the_worst_are_among_those_that_both_models_answer(options, tmp_path, held_out):
    run_dir = fit(tmp_path / "run", options, f"--data.held_out={held_out}", ASKED)
    before, after = (
        {line["question"]: line["answer_nll"] for line in lines(run_dir, "truthfulness", n)} for n in (0, 2)
    )
    rises = {question: nll - before[question] for question, nll in after.items()}
    worst = sorted((question for question in rises if rises[question] > 0), key=lambda one: -rises[one])[:2]
    answered = read_answers(run_dir)
    assert len(answered) == 2
    assert [one.question for one in answered][: len(worst)] == worst
    for one in answered:
        assert one.given == f"It is {one.question[-2]}."
        assert one.outer_epoch == 2
        assert None not in (one.pretrained, one.trained)
        assert one.nll_change == pytest.approx(rises[one.question])


def test_what_training_made_worse_is_asked_and_the_pretrained_model_then_as_well(
    options, tmp_path, held_out, monkeypatch
):
    rises = {f"What is number {n}?": n - 2.0 for n in range(6)}
    monkeypatch.setattr(held_out_answers, "nll_changes", lambda run_dir, outer_epoch: rises)
    few = fit(tmp_path / "few", options, ONE, f"--data.held_out={held_out}", ASKED)
    assert [line["question"] for line in lines(few, NAME, 1)] == ["What is number 5?", "What is number 4?"]
    every = fit(tmp_path / "every", options, ONE, f"--data.held_out={held_out}", "--held_out_answers.questions=6")
    known = {line["question"]: line["answer"] for line in lines(every, NAME, 0)}
    assert len(known) == 6
    asked = {line["question"]: line["answer"] for line in lines(few, NAME, 0)}
    assert {"What is number 5?", "What is number 4?"} <= asked.keys()
    assert asked.items() <= known.items()
    adapters = [(folder / "adapter/adapter_model.safetensors").read_bytes() for folder in (few, every)]
    assert adapters[0] == adapters[1]  # asking changes nothing


def test_an_answer_that_was_cut_off_ends_in_dots(tmp_path):
    said = {"id": "h-1", "question": "Why?", "given": "So.", "weights": None, "nll_change": None}
    answers = [{"answer": "Because it", "finished": False}, {"answer": "So.", "finished": True}, {"answer": "Older"}]
    for answer, shown in zip(answers, ["Because it …", "So.", "Older"], strict=True):
        (one,) = answers_of(tmp_path, [{**said, **answer, "outer_epoch": number} for number in (0, 1)])
        assert (one.pretrained, one.trained) == (shown, shown)


def test_none_are_asked_where_none_are_wanted_or_given(options, tmp_path, held_out):
    fit(tmp_path / "none", options, *SEEDS_ALONE, f"--data.held_out={held_out}", "--held_out_answers.questions=0")
    assert not (tmp_path / f"none/evaluation/{NAME}.jsonl").exists()


def test_what_is_out_of_range_is_refused():
    with pytest.raises(InputError, match="HeldOutAnswers: questions is -1; allowed: at least 0"):
        HeldOutAnswers(questions=-1)
    with pytest.raises(InputError, match="max_new_tokens is 0"):
        HeldOutAnswers(max_new_tokens=0)
