import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.compare import FAST, contrast, items, only, row, write_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara_pl.cli.commands import run_command
from isara_pl.errors import InputError
from isara_pl.evaluation.calibration import NLL_BY_TEMPERATURE, TEMPERATURES, cross_fitted
from isara_pl.evaluation.choice_scores import row_scores, tree_scores


def facts(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the logits of 8 tokens of each item, and what is right: as likely as the logits say."""
    draw = np.random.default_rng(7)
    logits = draw.normal(0, 2, size=(count, 8))
    return logits, draw.random((count, 8)) < 1 / (1 + np.exp(-logits))


def measured(confidence: float, count: int = 120) -> list[dict]:
    """Give items of a model whose logits over two tokens are `confidence` times those that fit the facts."""
    lines = []
    for number, (logits, right) in enumerate(zip(*facts(count), strict=True)):
        margins = np.where(right, logits, -logits) * confidence
        nlls = [float(np.log1p(np.exp(-margins / temperature)).mean()) for temperature in TEMPERATURES]
        lines.append(
            {
                "question": f"Question {number}?",
                "seeds": "seeds-a",
                "demonstrations": [],
                "contaminated": False,
                "answer_nll": nlls[TEMPERATURES.index(1.0)],
                "answer_tokens": 8,
                NLL_BY_TEMPERATURE: nlls,
            }
        )
    return lines


def compared(tmp_path: Path, *args: str) -> dict:
    run_command("compare", [*args, *FAST, "--json", str(tmp_path / "found.json")])
    return json.loads((tmp_path / "found.json").read_text())


@pytest.mark.parametrize("way", ["tree", "rows", "one row at a time"])
def test_the_nll_at_every_temperature_equals_plain_pytorch(tiny_llama, way):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    texts = [("Why so?", ("The sky is blue.", "No.", "Air.")), ("Who?", ("Air scatters blue light, more or less.",))]
    ids = [
        (tokenizer(question).input_ids, [tokenizer(text).input_ids for text in choices]) for question, choices in texts
    ]
    with torch.inference_mode():
        found = tree_scores(model, ids) if way == "tree" else row_scores(model, ids, 4 if way == "rows" else 1)
        for (prompt, choices), (first, *others) in zip(ids, found, strict=True):
            logits = model(torch.tensor([prompt + choices[0]])).logits[0, len(prompt) - 1 : -1]
            expected = [
                -(logits / temperature).log_softmax(-1)[range(len(choices[0])), choices[0]].mean().item()
                for temperature in TEMPERATURES
            ]
            assert first.nll_by_temperature == pytest.approx(expected, rel=1e-5)
            assert first.nll_by_temperature[TEMPERATURES.index(1.0)] == -first.log_probability / first.tokens
            assert [other.nll_by_temperature for other in others] == [()] * len(others)


def test_logits_of_lower_precision_are_divided_in_float32(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).eval()
    ids = AutoTokenizer.from_pretrained(tiny_llama)("Air scatters blue light more than red light.").input_ids
    with torch.inference_mode():
        ((first,),) = row_scores(model, [(ids[:3], [ids[3:]])], 1)
        logits = model(torch.tensor([ids])).logits[0, 2:-1].float()
    expected = [
        -(logits / temperature).log_softmax(-1)[range(len(ids) - 3), ids[3:]].mean().item()
        for temperature in TEMPERATURES
    ]
    assert first.nll_by_temperature == pytest.approx(expected, rel=1e-5)


def test_every_item_has_the_temperature_of_the_other_half(tmp_path):
    lines = [*measured(3.0)[:80], *measured(0.75)[80:]]
    questions, nlls = [line["question"] for line in lines], np.array([line[NLL_BY_TEMPERATURE] for line in lines])
    tokens = np.repeat([1, 50], [80, 40])
    half = np.array([hashlib.sha256(question.encode()).digest()[0] & 1 for question in questions])
    at_best = []  # every item's NLL at the temperature that suits each half best
    for of_half in (0, 1):
        means = np.average(nlls[half == of_half], axis=0, weights=tokens[half == of_half])
        near = means.argmin() + np.array([-1, 0, 1])
        square, linear, _ = np.polyfit(near, means[near], 2)
        at_best.append([np.polyval(np.polyfit(near, item[near], 2), -linear / (2 * square)) for item in nlls])
    expected = np.where(half == 0, at_best[1], at_best[0])
    assert 0.3 < half.mean() < 0.7
    assert cross_fitted(questions, nlls.tolist(), tokens.tolist()) == pytest.approx(expected.tolist())
    # what an item is at other temperatures moves the other half, never its own
    changed = nlls.copy()
    changed[half == 0, 0] = 0.0
    moved = np.array(cross_fitted(questions, changed.tolist(), tokens.tolist()))
    assert (moved[half == 1] == nlls[half == 1, 0]).all()
    assert moved[half == 0] == pytest.approx(expected[half == 0])


def test_between_two_temperatures_the_nll_is_as_if_it_were_measured_there():
    fine = np.exp(np.linspace(math.log(0.5), math.log(4), 2000))
    for confidence in (0.7, 1.15, 1.9, 3.1):
        lines = measured(confidence, 200)
        scaled = cross_fitted(
            [line["question"] for line in lines], [line[NLL_BY_TEMPERATURE] for line in lines], [8] * 200
        )
        logits, right = facts(200)
        margins = np.where(right, logits, -logits)[:, :, None] * confidence
        least = np.log1p(np.exp(-margins / fine)).mean(axis=(0, 1)).min()
        assert np.mean(scaled) == pytest.approx(least, abs=0.001)


def test_where_there_is_nothing_to_fit_on_the_model_stays_as_it_is():
    nlls = [float(number) for number in range(len(TEMPERATURES), 0, -1)]
    assert cross_fitted(["Alone?", "Alone?"], [nlls, nlls], [1, 1]) == [nlls[TEMPERATURES.index(1.0)]] * 2
    assert cross_fitted([], [], []) == []


def test_a_model_that_is_too_sure_loses_nothing_but_its_confidence(tmp_path, capsys):
    sure = write_run(tmp_path / "isara", {0: measured(1.0), 1: measured(3.0)}, generated=1)
    calibrated = write_run(tmp_path / "sft", {1: measured(1.0)}, generated=0)
    found = compared(tmp_path, sure, calibrated)
    raw, scaled = (contrast(found, "isara", "sft", name) for name in ("answer_nll", "answer_nll_scaled"))
    assert raw["conclusion"] == "worse"
    assert raw["difference"]["difference"] > 0.1
    assert abs(scaled["difference"]["difference"]) < 0.001
    assert row(found, "sft")["values"]["answer_nll_scaled"] == pytest.approx(
        row(found, "sft")["values"]["answer_nll"], abs=0.005
    )
    assert only(found)["measures"] == ["answer_nll", "answer_nll_scaled"]
    assert "answer NLL ↓  scaled NLL ↓" in capsys.readouterr().out
    # each outer epoch has a temperature of its own
    each = compared(tmp_path, sure, calibrated, "--outer_epochs", "all")
    values = [row(each, name)["values"]["answer_nll_scaled"] for name in ("pretrained", "isara, outer epoch 1")]
    assert values[0] == pytest.approx(values[1], abs=0.005)


def test_runs_from_before_have_no_such_measure_and_figures_that_are_not_finite_are_counted(tmp_path):
    old = write_run(tmp_path / "old", {1: items(0, 0, 1)}, generated=0)
    assert "answer_nll_scaled" not in row(compared(tmp_path, old), "old")["values"]
    lines = measured(3.0)
    broken = {**lines[0], "answer_nll": math.nan, NLL_BY_TEMPERATURE: [math.nan] * len(TEMPERATURES)}
    new = write_run(tmp_path / "new", {1: [broken, *lines[1:]]}, generated=1)
    whole = write_run(tmp_path / "whole", {1: lines}, generated=1)
    found = compared(tmp_path, new, whole)
    assert row(found, "new")["not_finite"] == {"answer_nll": 1, "answer_nll_scaled": 1}
    assert row(found, "new")["values"]["answer_nll_scaled"] == pytest.approx(
        row(found, "whole")["values"]["answer_nll_scaled"], rel=0.05
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [1.0, 2.0],
            rf"isara/evaluation/truthfulness\.jsonl:2: `{NLL_BY_TEMPERATURE}` must be a list of {len(TEMPERATURES)} numbers",
        ),
        ("abc", rf":2: `{NLL_BY_TEMPERATURE}` must be a list of"),
        (None, rf":2: `{NLL_BY_TEMPERATURE}` must be a list of"),
        ([1.0, "2.0", *TEMPERATURES[2:]], rf":2: `{NLL_BY_TEMPERATURE}` is '2\.0'; allowed: a number or null"),
        ([1.0, [], *TEMPERATURES[2:]], rf":2: `{NLL_BY_TEMPERATURE}` is \[\]; allowed: a number or null"),
    ],
)
def test_a_damaged_list_is_named_with_its_line(tmp_path, values, message):
    first, second, *others = measured(1.0)
    run = write_run(tmp_path / "isara", {1: [first, {**second, NLL_BY_TEMPERATURE: values}, *others]}, generated=1)
    with pytest.raises(InputError, match=message):
        run_command("compare", [run, *FAST])


def test_numbers_beyond_all_floats_are_not_finite(tmp_path):
    first, *others = measured(1.0)
    beyond = 10**400
    first = {**first, "answer_nll": beyond, NLL_BY_TEMPERATURE: [beyond] * len(TEMPERATURES)}
    run = write_run(tmp_path / "isara", {1: [first, *others]}, generated=1)
    assert row(compared(tmp_path, run), "isara")["not_finite"] == {"answer_nll": 1, "answer_nll_scaled": 1}
