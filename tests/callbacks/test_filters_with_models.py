"""All filters in real runs: what they count and keep, a cut and its resume, the conditions of a resume."""

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers.command_line import assert_same, before_call, fails, fit, rows
from helpers.judges import save_classifier
from helpers.several_processes import GREEDY, on_two

from isara_pl.cli.main import main
from isara_pl.growth.outer_epoch import OuterEpoch
from isara_pl.results.ledger import read_ledger

FILTERS = ("NearDuplicate", "Repetitive", "DuplicateAnswer", "SemanticDuplicate", "JudgedHarmful", "JudgedPoor")
FILTERS += ("Unsupported", "Empty")


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("judges")
    harm = save_classifier(folder / "harm", "bert", problem_type="multi_label_classification")
    return [harm, save_classifier(folder / "reward", "llama", ["reward"], pad=1)]


def judged(judges: list[str]) -> list[str]:
    kinds = ("SequenceClassifierJudge", "RewardModelJudge")
    return [
        option
        for filter_, kind, model, threshold in zip(FILTERS[4:6], kinds, judges, (0.8, -1.2), strict=True)
        for option in (
            f"--trainer.callbacks+=isara_pl.callbacks.{filter_}",
            f"--trainer.callbacks.judge=isara_pl.evaluation.judges.{kind}",
            f"--trainer.callbacks.judge.model={model}",
            "--trainer.callbacks.judge.template={answer}",
            f"--trainer.callbacks.threshold={threshold}",
        )
    ]


@pytest.fixture
def all_of_them(options, judges, speaker) -> list[str]:
    """Arguments of a run with every filter, each of which takes something."""
    named = {
        "Repetitive": ["run=1"],
        "DuplicateAnswer": ["threshold=0.25"],
        "SemanticDuplicate": ["threshold=0.97"],
    }
    others = [
        option
        for name, of_one in named.items()
        for option in (
            f"--trainer.callbacks+=isara_pl.callbacks.{name}",
            *(f"--trainer.callbacks.{one}" for one in of_one),
        )
    ]
    last = ["--trainer.callbacks+=isara_pl.callbacks.Unsupported", "--trainer.callbacks.threshold=0.2"]
    own = [
        "--data.epochs_per_outer_epoch=1",
        "--trainer.limit_val_batches=0",  # these runs are about the pool
        "--held_out_answers.questions=0",
        f"--model.name={speaker}",
        "--data.candidates_per_outer_epoch=12",
        "--data.candidates_per_batch=4",
    ]
    return [*options, *own, "--model.learning_rate=0.001", *others, *judged(judges), *last]


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.open()]


@pytest.mark.slow
def test_all_filters_count_keep_and_resume(all_of_them, judges, tmp_path, capsys):
    whole = fit(tmp_path / "whole", all_of_them)
    pool, rejected = (entries(whole / name) for name in ("pool.jsonl", "rejected.jsonl"))
    accepted = [sample for sample in pool if sample["outer_epoch"]]
    taken = Counter(line["filter"] for line in rejected)
    assert {*FILTERS[1:7]} <= {*taken}, taken
    for outer_epoch, row in enumerate(rows(whole), start=1):
        both = [sum(one["outer_epoch"] == outer_epoch for one in of) for of in (accepted, rejected)]
        assert (int(row["accepted"]), int(row["candidates"]), sum(both)) == (both[0], 12, 12)
    assert all(tuple(sample["scores"]) == (*FILTERS, "TooLong") for sample in accepted)
    assert all(
        line["reason"] and isinstance(line["figure"], float) for line in rejected if line["filter"] in FILTERS[:7]
    )
    # each batch is seen whole by both judges, and by the model in two ways
    scored = {row.outer_epoch: row.samples for row in read_ledger(whole / "ledger.csv") if row.stage == "scoring"}
    assert scored[1] == 12 * 2 + 2 * sum(
        bool(one["answer"]) for one in [*accepted, *rejected] if one["outer_epoch"] == 1
    )

    # cut before the last batch was judged, and as if killed while writing the one before
    cut = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, OuterEpoch, "_judge", 6, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(SystemExit):
            main(["fit", *all_of_them, f"--run_dir={cut}"])
    lines = (cut / "pool.jsonl").read_text().splitlines(keepends=True)
    assert '"outer_epoch": 2' in lines[-1]
    (cut / "pool.jsonl").write_text("".join(lines[:-1]))
    fit(cut, all_of_them, "--ckpt_path=last")
    assert_same(cut, whole)

    # other options are other filters
    changes = {"threshold=0.97": "threshold=0.96", "template={answer}": "template={question} {answer}"}
    other = [*all_of_them]
    for before, now in changes.items():
        place = next(place for place, option in enumerate(other) if option.endswith(before))
        other[place] = other[place].replace(before, now)
    error = fails(["fit", *other, f"--run_dir={cut}", "--ckpt_path=last"], capsys)
    assert "SemanticDuplicate(threshold=0.97)" in error
    assert 'options of judge of JudgedHarmful: {"template": "{answer}"' in error


@pytest.mark.slow
def test_two_processes_filter_as_one_does(all_of_them, tmp_path):
    arguments = ["fit", *all_of_them, *GREEDY, "--data.outer_epochs=1", "--data.candidates_per_batch=3"]
    main([*arguments, f"--run_dir={tmp_path / 'one'}"])
    done = on_two(arguments, tmp_path / "two")
    assert done.returncode == 0, done.stdout
    for name in ("pool.jsonl", "rejected.jsonl"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert any("Unsupported" in sample["scores"] for sample in entries(tmp_path / "one/pool.jsonl")), "all were asked"
