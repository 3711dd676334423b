"""The validation share: seeds that nothing is trained on, grown from or shown, but validated on."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import make_seeds
from helpers.command_line import assert_same, fails, fit, rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara_pl.cli.main import main
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.growth.samples import Sample
from isara_pl.module import IsaraModule
from isara_pl.training.loaders import in_file_order, left_out, training_part

QUARTER = "--data.validation_share=0.25"  # 2 of the 8 seeds
# for a list that is given anew
EARLY_STOPPING = {"monitor": "validation_nll", "min_delta": 1000.0, "patience": 1, "verbose": False}


def both_parts(seeds: list[Sample], share: float, seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    used = training_part(seeds, share, seed)
    return used, left_out(seeds, used) if share else []


def nll_per_answer_token(model: str, samples: list[Sample]) -> float:
    """Compute it with transformers alone."""
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    total, count = 0.0, 0
    for sample in samples:
        prompt = tokenizer(f"Question: {sample.question}\nAnswer:").input_ids
        ids = tokenizer(f"Question: {sample.question}\nAnswer: {sample.answer}").input_ids
        with torch.no_grad():
            logs = plain(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(logs[place - 1, ids[place]].item() for place in range(len(prompt), len(ids)))
        count += len(ids) - len(prompt)
    return total / count


# -- the split


@pytest.mark.parametrize(("share", "held"), [(0, 0), (0.01, 1), (0.25, 10), (0.5, 20), (0.97, 39)])
def test_the_seeds_are_split_at_random_by_the_seed_alone_and_keep_their_order(share, held):
    seeds = make_seeds(40)
    used, validated = both_parts(seeds, share)
    assert (len(validated), len(used)) == (held, 40 - held)
    assert in_file_order([*validated, *used]) == seeds
    assert [used, validated] == [in_file_order(used), in_file_order(validated)]
    assert both_parts(seeds, share) == (used, validated)
    if 0 < held < 39:
        others = [both_parts(seeds, share, seed)[1] for seed in range(1, 4)]
        assert any(other != validated for other in others)
        assert {sample.id for sample in both_parts(seeds, 0.01)[1]} <= {sample.id for sample in validated}


def test_seeds_that_ask_the_same_stay_on_one_side():
    seeds = [
        replace(seed, id=f"seed-{2 * place + again:05d}", question=seed.question.upper() if again else seed.question)
        for place, seed in enumerate(make_seeds(10))
        for again in (0, 1)
    ]
    used, validated = both_parts(seeds, 0.25)
    assert len(validated) == 6  # 5 would be a quarter
    assert not {one.question.lower() for one in used} & {one.question.lower() for one in validated}


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (-0.1, r"data\.validation_share is -0\.1; allowed: at least 0 and below 1"),
        (1.0, r"data\.validation_share is 1\.0; allowed: at least 0 and below 1"),
        (float("nan"), r"data\.validation_share is nan"),
        (0.95, r"data\.validation_share is 0\.95, but data\.seeds has 8 seeds \(8 different questions\)"),
    ],
)
def test_a_share_that_cannot_be_held_out_is_refused_before_a_model_is_loaded(seeds_file, tiny_encoder, share, said):
    with pytest.raises(InputError, match=said):
        IsaraDataModule(seeds_file, encoder=tiny_encoder, validation_share=share)


def test_the_hash_is_that_of_all_seeds_and_the_overlap_is_looked_for_in_all(seeds_file, tiny_encoder):
    whole = IsaraDataModule(seeds_file, encoder=tiny_encoder)
    data = IsaraDataModule(seeds_file, encoder=tiny_encoder, validation_share=0.25)
    assert (len(data.seeds), len(data.validation), whole.validation) == (6, 2, [])
    assert data.seeds_hash == whole.seeds_hash
    for seed in (data.seeds[0], data.validation[0]):
        with pytest.raises(InputError, match=f"1 of its items are seeds as well: {seed.id}"):
            data.check_overlap([replace(seed, id="item")], "data.held_out")


# -- a run


def test_a_run_without_held_out_pairs_validates_on_seeds_that_it_neither_trains_on_nor_shows(
    run, tiny_llama, seeds_file, tmp_path, monkeypatch, capsys
):
    trained: set[str] = set()
    step = IsaraModule.training_step

    def remembering(module, batch, batch_idx):
        trained.update(batch["sample_ids"])
        return step(module, batch, batch_idx)

    monkeypatch.setattr(IsaraModule, "training_step", remembering)
    run_dir = run("fit", [("BestEpoch", {})], QUARTER, held_out=None)
    data = IsaraDataModule(seeds_file, validation_share=0.25)
    held = {sample.id for sample in data.validation}
    pool = [json.loads(line) for line in (run_dir / "pool.jsonl").open()]
    shown = {name for row in pool for kind in ("question", "answer") for name in row[f"{kind}_demonstrations"]}
    assert len(held) == 2
    assert {row["id"] for row in pool if row["outer_epoch"] == 0} == {seed.id for seed in data.seeds}
    assert shown
    assert not held & (trained | shown)
    assert trained == {row["id"] for row in pool}
    figures = [float(row["validation_nll"]) for row in rows(run_dir)]
    assert figures[0] == pytest.approx(nll_per_answer_token(tiny_llama, data.validation), rel=1e-5)
    assert len(set(figures)) == 3
    assert "validation NLL" in capsys.readouterr().out
    conditions = json.loads((run_dir / "conditions.json").read_text())
    assert (conditions["data.validation_share"], conditions["best_epoch"]) == (0.25, True)
    assert conditions["data.seeds"] == f"8 pairs with the hash {data.seeds_hash}"
    config = ["fit", f"--config={tmp_path / 'run.yaml'}", "--ckpt_path=last"]
    error = fails([*config, "--data.validation_share=0.4", "--trainer.callbacks=[]"], capsys)
    assert "data.validation_share: 0.25 then, 0.4 now" in error
    assert "best_epoch: true then, false now" in error
    # the pool's seeds stay, and so do those that are held out
    changed = ("--data.validation_share=0.4", "--data.outer_epochs=3", "--data.on_change=continue")
    with pytest.warns(UserWarning, match="going on with the 6 seeds of the pool"):
        main([*config, *changed])
    assert json.loads((run_dir / "conditions.json").read_text())["data.seeds"] == conditions["data.seeds"]
    assert len(rows(run_dir)) == 4
    assert not held & trained


def test_held_out_pairs_and_the_share_are_measured_each_under_its_name(tiny_llama, run, seeds_file, held_out_file):
    data = IsaraDataModule(seeds_file, held_out_file, 0.25)
    (row,) = rows(run("validate", [], QUARTER))
    for name, pairs in (("answer_nll", data.held_out), ("validation_nll", data.validation)):
        assert float(row[name]) == pytest.approx(nll_per_answer_token(tiny_llama, pairs), rel=1e-5)


def test_lightnings_early_stopping_ends_a_run_by_the_validation_share(run):
    callback = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": EARLY_STOPPING}
    run_dir = run(
        "fit", [], QUARTER, "--data.outer_epochs=4", f"--trainer.callbacks+={json.dumps(callback)}", held_out=None
    )
    assert [row["outer_epoch"] for row in rows(run_dir)] == ["0", "1", "2"]  # none is better by 1000
    assert {json.loads(line)["outer_epoch"] for line in (run_dir / "pool.jsonl").open()} <= {0, 1, 2}


def test_a_run_of_before_there_was_a_share_goes_on_and_holds_out_nothing_afterwards(
    options, tmp_path, undisturbed, capsys
):
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)
    path = run_dir / "conditions.json"
    conditions = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in conditions.items() if "validation" not in k and k != "best_epoch"}))
    again = ["fit", *options, f"--run_dir={run_dir}", "--ckpt_path=last", QUARTER]
    assert "was grown from other seeds than those given now" in fails(again, capsys)
    assert "none is left to validate on" in fails([*again, "--data.on_change=continue"], capsys)
    path.write_text(json.dumps({k: v for k, v in conditions.items() if "validation" not in k and k != "best_epoch"}))
    fit(run_dir, options, "--ckpt_path=last")
    assert_same(run_dir, undisturbed)
    assert json.loads(path.read_text()) == conditions
