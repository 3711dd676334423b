"""scripts/study.py: the whole matrix, with a tiny model."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from isara_pl.results.items import read_results
from isara_pl.results.run import Run

ROOT = Path(__file__).parents[2]
SHORT = [
    f"--{texts}.max_new_tokens=4" for texts in ("held_out_answers", "data.question_sampling", "data.answer_sampling")
]


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # where it finds its neighbour
    spec = importlib.util.spec_from_file_location("study", ROOT / "scripts/study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.started = []
    run_lightning, run_command = module.run_lightning, module.run_command

    def recorded_run(words):
        module.started.append(words)
        run_lightning([*words, *SHORT])

    def recorded_command(name, words):
        module.started.append([name, *words])
        run_command(name, words)

    monkeypatch.setattr(module, "run_lightning", recorded_run)
    monkeypatch.setattr(module, "run_command", recorded_command)
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
    assert study.trial_of(study_arguments(), "sft_matched", folder, 1).config["data"]["epochs_per_outer_epoch"] == steps
    compared = json.loads((tmp_path / "study/comparison_all.json").read_text())
    names = {row["method"] for row in compared["evaluations"][0]["rows"]}
    assert {"pretrained", "icl_knn", "isara, outer epoch 1", "isara, outer epoch 2", "sft, outer epoch 1"} <= names
    assert compared["reference"].startswith("sft")


def study_arguments():
    return argparse.Namespace(
        candidates=3,
        outer_epochs=2,
        seeds=6,
        items=5,
        model="",
        answer_tokens=0,
        new_tokens=None,
        train_on="harm",
        evaluation_precision="float32",
        filter_options={"JudgedPoor": {"threshold": 1.5}},
    )


def test_a_filter_is_added_to_distillation_and_nothing_else_is_changed(study, tmp_path):
    plain = study.trial_of(study_arguments(), "distill", tmp_path, 0).config
    for name, own in (("Repetitive", {}), ("JudgedPoor", {"threshold": 1.5})):
        assert f"distill+{name}" in study.FILTERED
        filtered = study.trial_of(study_arguments(), f"distill+{name}", tmp_path, 0).config
        added = {"class_path": f"isara_pl.callbacks.{name}", "init_args": own}
        assert added in filtered["trainer"]["callbacks"]
        filtered["trainer"]["callbacks"].remove(added)
        assert {**filtered, "run_dir": ""} == {**plain, "run_dir": ""}


@pytest.mark.parametrize(
    ("train_on", "given", "expected"),
    [("truthfulness", None, (32, 40)), ("harm", None, (48, 80)), (None, None, (48, 80)), ("harm", [64, 96], (64, 96))],
)
def test_candidates_are_as_long_as_the_domain_or_the_option_says(study, tmp_path, train_on, given, expected):
    asked = argparse.Namespace(**{**vars(study_arguments()), "train_on": train_on, "new_tokens": given})
    data = study.trial_of(asked, "isara", tmp_path, 0).config["data"]
    assert tuple(data[f"{text}_sampling"]["max_new_tokens"] for text in ("question", "answer")) == expected


@pytest.mark.real
def test_what_is_finished_is_not_run_again_and_what_was_cut_off_goes_on(
    study, files, tiny_llama, tmp_path, monkeypatch
):
    to = tmp_path / "study"
    some = [*options(files, to, tiny_llama, "truthfulness"), "--seed_sets=1", "--outer_epochs=1"]
    some += ["--methods", "pretrained", "isara"]
    monkeypatch.setattr(sys, "argv", some)
    study.main()
    ours, of_pretrained = (Run(to / "set-0" / method) for method in ("isara", "pretrained"))
    before, once = (run.at(0)["truthfulness"] for run in (ours, of_pretrained))
    assert before == once != []
    assert ours.metrics[0]["mc2"] == of_pretrained.metrics[0]["mc2"] != ours.metrics[1]["mc2"]
    assert {row.outer_epoch for row in ours.ledger if row.stage == "truthfulness"} == {1}  # not measured anew
    (to / "set-0/isara/finished.json").unlink()  # as if it had been killed before its end
    study.started.clear()
    study.main()
    (again, *comparisons) = study.started
    assert again[-2:] == ["--ckpt_path", "last"]
    assert "isara.yaml" in again[2]
    assert [command[0] for command in comparisons] == ["compare", "compare"]


@pytest.mark.parametrize(("incorrect", "name"), [(["Of cheese."], "truthfulness.jsonl"), ([], "held_out.jsonl")])
def test_pairs_without_incorrect_answers_are_measured_by_their_answers_alone(study, tmp_path, incorrect, name):
    pairs, folder = tmp_path / "pairs.jsonl", tmp_path / "set-0"
    rows = [{"question": f"What is {n}?", "answer": f"{n}.", "incorrect_answers": incorrect} for n in range(9)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = argparse.Namespace(
        truthfulness=pairs, harm=None, train_on="truthfulness", seeds=5, items=4, other_items=0, answer_tokens=0
    )
    study.write_seed_set(asked, folder, 0)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["seeds.jsonl", name])
    (evaluation, _) = study.evaluations(asked, "sft", folder)
    assert (evaluation["init_args"]["items"] is None) == (name == "held_out.jsonl")


def test_a_study_of_a_domain_without_its_file_says_which_option_is_missing(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study.py", "--train_on=harm", f"--to={tmp_path}"])
    with pytest.raises(SystemExit):
        study.main()
    assert "--train_on harm needs the file --harm" in capsys.readouterr().err


@pytest.mark.real
def test_every_domain_is_trained_on_and_all_are_measured_in_one_matrix(
    study, files, tiny_llama, tmp_path, monkeypatch, capsys
):
    to = tmp_path / "study"
    arguments = [
        "study.py", "--domains", *map(str, files), f"--to={to}", f"--model={tiny_llama}", "--methods=sft",
        "--seed_sets=1", "--seeds=4", "--items=5", "--other_items=3",
    ]  # fmt: skip
    monkeypatch.setattr(sys.modules["domains"], "FEWEST", 5)
    monkeypatch.setattr(sys, "argv", arguments)
    study.main()
    for own, other in (("TruthfulQA", "pairs"), ("pairs", "TruthfulQA")):
        folder = to / own / "set-0"
        measured = read_results(folder / "sft/evaluation/truthfulness.jsonl")
        last = [line["category"] for line in measured if line["outer_epoch"] == 1]
        assert (last.count(own), last.count(other)) == (5, 3)
        seeds = {json.loads(line)["question"] for line in (folder / "seeds.jsonl").read_text().splitlines()}
        assert len(seeds) == 4
        assert not seeds & {line["question"] for line in measured}
        if own == "pairs":
            assert all("steal" in question for question in seeds)
    printed = capsys.readouterr().out
    page = (to / "report.html").read_text()
    assert 'href="pairs/set-0/sft/report.html"' in page
    for text in (printed, (to / "transfer.md").read_text(), page):
        assert "sft minus pretrained" in text
        assert "answer NLL ↓, trained on" in text
        assert "MC2 ↑, trained on" in text
    cells = json.loads((to / "transfer.json").read_text())
    assert [(cell["trained_on"], cell["measured_on"], cell["items"]) for cell in cells] == [
        ("TruthfulQA", "TruthfulQA", 5), ("TruthfulQA", "pairs", 3), ("pairs", "TruthfulQA", 3), ("pairs", "pairs", 5)
    ]  # fmt: skip
    for cell in cells:
        (contrast,) = [one for one in cell["contrasts"] if one["measure"] == "answer_nll"]
        expected = cell["trained"]["answer_nll"] - cell["pretrained"]["answer_nll"]
        assert contrast["difference"]["difference"] == pytest.approx(expected)
        assert contrast["difference"]["low"] <= expected <= contrast["difference"]["high"]
    study.started.clear()
    study.main()  # all is finished
    assert study.started == []


def test_the_categories_of_a_single_file_are_domains(study, tmp_path, capsys):
    path = tmp_path / "all.jsonl"
    rows = [(f"What is {name} {i}?", name) for name, count in (("a", 30), ("b", 24), ("few", 23)) for i in range(count)]
    path.write_text(
        "".join(json.dumps({"question": question, "answer": "So.", "category": of}) + "\n" for question, of in rows)
    )
    found = study.read_domains([path], seeds=4)
    assert {name: len(samples) for name, samples in found.items()} == {"a": 30, "b": 24}
    assert "few (23)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="two or more domains each needs --seeds 25 pairs"):
        study.read_domains([path], seeds=25)


@pytest.mark.parametrize("given", [["--domains", "a.csv", "--train_on=harm"], []])
def test_a_study_is_of_one_domain_or_of_several(study, tmp_path, monkeypatch, capsys, given):
    monkeypatch.setattr(sys, "argv", ["study.py", *given, f"--to={tmp_path}"])
    with pytest.raises(SystemExit):
        study.main()
    assert "give either --train_on, with its file, or --domains" in capsys.readouterr().err
