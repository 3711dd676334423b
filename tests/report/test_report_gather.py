import csv
import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers.report_runs import SEEDS, accepted, rejected, write_run

from isara_pl.errors import InputError
from isara_pl.evaluation.diversity import diversity, is_copy, nearest_cosine
from isara_pl.growth.retrieval import SentenceEncoder
from isara_pl.report import curves, tables
from isara_pl.report.curves import on_plane
from isara_pl.report.gather import gather
from isara_pl.results.items import write_results
from isara_pl.results.run import Run


@pytest.fixture(scope="module")
def encoder(tiny_encoder):
    return SentenceEncoder(tiny_encoder)


@pytest.fixture(scope="module")
def report(undisturbed, encoder):
    return gather(Run(undisturbed), [], encoder)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_figures_are_those_of_the_files(undisturbed, report):
    rows = list(csv.DictReader((undisturbed / "metrics.csv").open()))
    shown = {curve.name: curve for curve in report.curves}
    assert [*shown][:2] == ["answer_nll", "mc2"]
    for name in ("answer_nll", "mc2", "rouge_diff"):
        assert shown[name].outer_epochs == [0, 1, 2]
        assert shown[name].values == [float(row[name]) for row in rows]
    assert (shown["answer_nll"].higher_is_better, shown["mc2"].higher_is_better) == (False, True)
    assert not {"seconds", "novelty", "accepted", "data_scaling"} & shown.keys()
    assert [(one.outer_epoch, one.novelty, one.candidates, one.accepted, one.trained) for one in report.grown] == [
        (int(row["outer_epoch"]), float(row["novelty"]), int(row["candidates"]), int(row["accepted"]), True)
        for row in rows[1:]
    ]
    head, grown = tables.grown(report, ["NearDuplicate"])
    scaling = [float(line[head.index("all samples ÷ seeds")]) for line in grown]
    assert scaling == pytest.approx([float(row["data_scaling"]) for row in rows[1:]], rel=1e-3)
    assert report.alpha == 0.1
    assert dict(report.facts)["data.outer_epochs"] == "2"


def test_samples_are_those_of_the_pool_then_the_rejected_with_their_lineage(undisturbed, report):
    pool, taken = lines(undisturbed / "pool.jsonl"), lines(undisturbed / "rejected.jsonl")
    assert [row.id for row in report.samples] == [line["id"] for line in [*pool, *taken]]
    for row, line in zip(report.samples, [*pool, *taken], strict=True):
        assert (row.question, row.answer, row.outer_epoch) == (line["question"], line["answer"], line["outer_epoch"])
        for part in ("question_demonstrations", "answer_demonstrations"):
            assert [report.samples[place].id for place in getattr(row, part)] == line[part]
    statuses = Counter(row.status for row in report.samples)
    assert statuses == {"seed": 8, "accepted": len(pool) - 8, **({"rejected": len(taken)} if taken else {})}


def test_the_map_is_the_principal_components_of_the_questions(report, encoder):
    shown = [row for row in report.samples if row.status != "rejected"]
    of_epochs = [[row.question for row in shown if row.outer_epoch == number] for number in (0, 1, 2)]
    embeddings = np.concatenate([encoder.encode(questions) for questions in of_epochs]).astype(float)
    centred = embeddings - embeddings.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes *= np.sign(axes[[0, 1], np.abs(axes).argmax(axis=1)])[:, None]
    points = np.array([(row.x, row.y) for row in shown])
    assert points == pytest.approx(centred @ axes.T, abs=2e-4)
    share = (points**2).sum() / (centred**2).sum()
    assert f"{share:.0%} of the variance" in report.map_note
    assert all(row.x is None for row in report.samples if row.status == "rejected")


def test_a_map_needs_three_different_questions():
    assert on_plane(np.eye(2, dtype=np.float32)) is None
    assert on_plane(np.ones((5, 4), dtype=np.float32)) is None


def test_diversity_is_that_of_the_callback(report, encoder, monkeypatch):
    seeds = encoder.encode([row.question for row in report.samples if row.outer_epoch == 0])
    assert [row.outer_epoch for row in report.diversity] == [0, 1, 2]
    for row in report.diversity:
        own = [one for one in report.samples if one.status != "rejected" and one.outer_epoch == row.outer_epoch]
        embeddings = encoder.encode([one.question for one in own])
        shown = [[report.samples[place].answer for place in one.answer_demonstrations] for one in own]
        figures = diversity(
            [one.question for one in own],
            [one.answer for one in own],
            embeddings,
            nearest_cosine(embeddings, seeds if row.outer_epoch else None),
            [is_copy(one.answer, answers) for one, answers in zip(own, shown, strict=True)],
        )
        assert row.samples == len(own)
        assert row.figures == pytest.approx(figures, abs=1e-5)
    everything = curves._nearest_others(embeddings).mean()
    monkeypatch.setattr(curves, "MOST_LOOKED_UP", 3)  # of more samples, some at even distances stand for all
    cosines = nearest_cosine(embeddings)
    looked_up = np.linspace(0, len(embeddings) - 1, 3).astype(int)
    assert everything == pytest.approx(cosines.mean(), abs=1e-5)
    assert curves._nearest_others(embeddings).mean() == pytest.approx(cosines[looked_up].mean(), abs=1e-5)


def test_nothing_in_it_names_a_place_of_the_machine(undisturbed, report, tmp_path):
    assert str(undisturbed.parent) not in json.dumps(asdict(report))
    listed = dict(gather(Run(write_run(tmp_path / "run")), [], None).facts)
    assert listed["filters"] == "NearDuplicate(threshold=0.7), Words('list')"
    assert (listed["data.encoder"], listed["data.held_out"]) == ("encoder", "held.jsonl")


def test_equal_files_give_equal_reports(undisturbed, report, encoder, tmp_path):
    shutil.copytree(undisturbed, tmp_path / undisturbed.name)
    assert gather(Run(tmp_path / undisturbed.name), [], encoder) == report


def test_a_run_that_is_going_on_may_have_torn_lines_and_lack_everything_but_its_pool(tmp_path):
    folder = write_run(tmp_path / "run", pool=[accepted(1, 0)], taken=[rejected(1, 1)])
    for name in ("pool.jsonl", "rejected.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"id": "1-00002", "quest')
    assert [row.id for row in gather(Run(folder), [], None).samples][4:] == ["1-00000", "1-00001"]
    for path in folder.iterdir():
        if path.name != "pool.jsonl":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = gather(Run(folder), [], None)
    assert (len(report.samples), report.curves, report.spent, report.alpha) == (5, [], [], None)
    assert [finding.tone for finding in report.findings[:3]] == ["unsure"] * 3


def test_every_file_is_read_once(undisturbed, encoder, monkeypatch):
    read, plain = Counter(), Path.open

    def counted(path, *args, **kwargs):
        if path.is_relative_to(undisturbed):
            read[str(path.relative_to(undisturbed))] += 1
        return plain(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counted)
    gather(Run(undisturbed), [], encoder)
    assert {
        "pool.jsonl",
        "rejected.jsonl",
        "metrics.csv",
        "ledger.csv",
        "config.yaml",
        "conditions.json",
        "plan.json",
    } <= read.keys()
    assert "evaluation/truthfulness.jsonl" in read
    assert set(read.values()) == {1}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("pool.jsonl", '{"id": "1-00000", "question": 3, "answer": "b", "outer_epoch": 1}'),
        ("pool.jsonl", '{"id": "1-00000", "question": "a", "answer": "b", "scores": [1]}'),
        ("rejected.jsonl", '{"id": "1-00000", "question": "a", "answer": "b", "outer_epoch": 1}'),
        ("metrics.csv", "one,2,3,4,5,6,7"),
        ("ledger.csv", "outer_epoch,stage\n1,all"),
        ("conditions.json", "{"),
        ("plan.json", "{"),
        ("config.yaml", "a: [b"),
        ("evaluation/contamination.jsonl", '{"outer_epoch": 1}'),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, line):
    folder = write_run(tmp_path / "run", pool=[accepted(1, 0)])
    with (folder / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=name):
        gather(Run(folder), [], None)


def test_hostile_texts_pass_unchanged(tmp_path):
    hostile = "</script><script>alert(1)</script>\x1b[31m\u202e {{ 7*7 }} \u2028'\""
    folder = write_run(
        tmp_path / "run",
        pool=[accepted(1, 0, question=hostile, answer=hostile, category=hostile)],
        taken=[rejected(1, 1, taken_by=hostile, question=hostile)],
    )
    last, taken = gather(Run(folder), [], None).samples[-2:]
    assert (last.question, last.answer, last.category) == (hostile,) * 3
    assert (taken.question, taken.filter) == (hostile,) * 2


class Fixed:
    """Embeds a question as what a table says, and any other one as the first axis."""

    def __init__(self, far: str) -> None:
        self.far = far

    def encode(self, texts):
        return np.array([(0, 1) if text == self.far else (1, 0) for text in texts], dtype=np.float32)


def test_suspicious_samples_are_flagged_the_worst_of_each_kind_first(tmp_path):
    pool = [accepted(1, number) for number in range(12)]
    pool[2] = accepted(1, 2, answer="I'm sorry, but I cannot help with that.")
    pool[4] = accepted(1, 4, answer="they have 16 LEGS, all of them")  # as seed-00002, from which it was written
    pool[6] = accepted(1, 6, answer="the same thing " * 8)
    pool[8] = accepted(1, 8, question="Something else entirely?")
    pool[9] = accepted(1, 9, scores={"NearDuplicate": 0.69})
    pool[11] = accepted(1, 11, answer="Ja.")
    folder = write_run(tmp_path / "run", pool=pool)
    touch = {"question": "What is in box 3?", "sample_question": "", "sample_answer": "", "kind": "rouge", "by": 0.81}
    for outer_epoch in (1, 2):  # each outer epoch finds the contacts of the earlier ones again
        found = [{"id": "held-out-00003", "sample": "1-00010", **touch}, {"id": "x", "sample": "seed-00000", **touch}]
        write_results(folder, "contamination", outer_epoch, found)
    report = gather(Run(folder), [], Fixed("Something else entirely?"))
    flags = {row.id: row.flags for row in report.samples if row.flags}
    reasons = {name: " ".join(of_sample) for name, of_sample in flags.items()}
    assert "ROUGE-L 0.810) as the evaluation item held-out-00003, “What is in box 3?”" in reasons["1-00010"]
    assert "refuses" in reasons["1-00002"]
    assert "answer of seed-00002" in reasons["1-00004"]
    assert "13% of its answer's pairs" in reasons["1-00006"]
    assert "24 words; those of the seeds have 7 to 7" in reasons["1-00006"]
    assert "farthest from all seeds (cosine 0.000" in reasons["1-00008"]
    assert "nearest to a known one (ROUGE-L 0.690)" in reasons["1-00009"]
    assert "1 word;" in reasons["1-00011"]
    assert flags.keys().isdisjoint({"seed-00000", "1-00003", "1-00005", "1-00007"})
    named = [report.samples[place].id for place in report.worth_a_look]
    assert named[:4] == ["1-00010", "1-00004", "1-00006", "1-00002"]
    assert set(named) == flags.keys()


def test_at_least_one_accepted_sample_is_named(tmp_path):
    plain = [accepted(1, number, answer=SEEDS[0].answer + " So.", scores={}) for number in range(3)]
    report = gather(Run(write_run(tmp_path / "run", pool=plain)), [], None)
    assert [report.samples[place].id for place in report.worth_a_look] == ["1-00000"]
    assert "No map" in report.map_note
