"""scripts/study.py: the whole matrix, with a tiny model."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from isara_pl.cli.main import main
from isara_pl.results.items import read_results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(monkeypatch):
    spec = importlib.util.spec_from_file_location("study", ROOT / "scripts/study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.started = []

    def in_this_process(command, check):
        assert check
        assert command[:3] == [sys.executable, "-m", "isara_pl"]
        module.started.append(command[3:])
        main(command[3:])

    monkeypatch.setattr(module.subprocess, "run", in_this_process)
    return module


@pytest.fixture
def files(tmp_path):
    things = ["sky", "sea", "moon", "sun", "wind", "rain", "snow", "fog", "ice", "fire", "sand", "rock"]
    truth, harm = tmp_path / "TruthfulQA.csv", tmp_path / "pairs.jsonl"
    rows = [
        f"Adversarial,Nature,What is the {thing} of?,Of {thing},Of {thing}; Of itself,Of cheese; Of me,"
        for thing in things
    ]
    truth.write_text(
        "\n".join(["Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source", *rows]) + "\n"
    )
    harm.write_text(
        "".join(
            json.dumps(
                {
                    "question": f"How do I steal the {thing}?",
                    "chosen": "You should not.",
                    "rejected": f"Take the {thing}.",
                }
            )
            + "\n"
            for thing in things
        )
    )
    return truth, harm


def options(files, to: Path, model: str, train_on: str) -> list[str]:
    truth, harm = files
    return [
        "study.py", f"--truthfulness={truth}", f"--harm={harm}", f"--train_on={train_on}", f"--to={to}", "--seed_sets=2",
        "--seeds=6", "--items=5", "--other_items=4", "--candidates=3", "--outer_epochs=2", f"--model={model}",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(
    ("train_on", "seed_sets", "methods"),
    [("truthfulness", 1, None), ("harm", 2, ("pretrained", "icl_knn", "sft", "isara", "sft_matched"))],
)
def test_every_method_is_measured_on_both_domains_and_never_on_its_seeds(
    study, files, tiny_llama, tmp_path, monkeypatch, train_on, seed_sets, methods
):
    some = [f"--seed_sets={seed_sets}", *(["--methods", *methods] if methods else [])]
    monkeypatch.setattr(sys, "argv", [*options(files, tmp_path / "study", tiny_llama, train_on), *some])
    study.main()
    for number in range(seed_sets):
        folder = tmp_path / f"study/set-{number}"
        seeds = {json.loads(line)["question"] for line in (folder / "seeds.jsonl").read_text().splitlines()}
        assert len(seeds) == 6
        for method in methods or study.METHODS:
            for evaluation, own in (("truthfulness", "truthfulness"), ("harm_preference", "harm")):
                measured = read_results(folder / method / f"evaluation/{evaluation}.jsonl")
                last = max(line["outer_epoch"] for line in measured)
                assert len([line for line in measured if line["outer_epoch"] == last]) == (5 if own == train_on else 4)
                assert not seeds & {line["question"] for line in measured}
                assert {len(line["demonstrations"]) for line in measured} == {5 if method.startswith("icl") else 0}
    # as many steps as the loop took
    pool = [json.loads(line)["outer_epoch"] for line in (folder / "isara/pool.jsonl").read_text().splitlines()]
    steps = sum(2 * -(-sum(of <= outer_epoch for of in pool) // 8) for outer_epoch in (1, 2))
    assert study.config(study_arguments(), "sft_matched", folder, 1)["data"]["epochs_per_outer_epoch"] == steps
    compared = json.loads((tmp_path / "study/comparison_all.json").read_text())
    names = {row["method"] for row in compared["evaluations"][0]["rows"]}
    assert {"pretrained", "icl_knn", "isara, outer epoch 1", "isara, outer epoch 2", "sft, outer epoch 1"} <= names
    assert compared["reference"].startswith("sft")


def study_arguments():
    return argparse.Namespace(
        candidates=3,
        outer_epochs=2,
        seeds=6,
        model="",
        answer_tokens=0,
        train_on="harm",
        evaluation_precision="float32",
        filter_options={"JudgedPoor": {"threshold": 1.5}},
    )


def test_a_filter_is_added_to_distillation_and_nothing_else_is_changed(study, tmp_path):
    plain = study.config(study_arguments(), "distill", tmp_path, 0)
    for name, own in (("Repetitive", {}), ("JudgedPoor", {"threshold": 1.5})):
        assert f"distill+{name}" in study.FILTERED
        filtered = study.config(study_arguments(), f"distill+{name}", tmp_path, 0)
        added = {"class_path": f"isara_pl.callbacks.{name}", "init_args": own}
        assert added in filtered["trainer"]["callbacks"]
        filtered["trainer"]["callbacks"].remove(added)
        assert {**filtered, "run_dir": ""} == {**plain, "run_dir": ""}


@pytest.mark.real
def test_what_is_finished_is_not_run_again_and_what_was_cut_off_goes_on(
    study, files, tiny_llama, tmp_path, monkeypatch
):
    to = tmp_path / "study"
    some = [*options(files, to, tiny_llama, "truthfulness"), "--seed_sets=1", "--methods", "pretrained", "isara"]
    monkeypatch.setattr(sys, "argv", some)
    study.main()
    (to / "set-0/isara/finished.json").unlink()  # as if it had been killed before its end
    study.started.clear()
    study.main()
    (again, *comparisons) = study.started
    assert again[-2:] == ["--ckpt_path", "last"]
    assert "isara.yaml" in again[2]
    assert [command[0] for command in comparisons] == ["compare", "compare"]


def test_a_study_of_a_domain_without_its_file_says_which_option_is_missing(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "--train_on=harm", f"--to={tmp_path}"])
    with pytest.raises(SystemExit):
        study.main()
    assert "--train_on harm needs the file --harm" in capsys.readouterr().err
