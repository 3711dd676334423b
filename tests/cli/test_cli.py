import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from helpers.command_line import (
    SEEDS_ALONE,
    UNMEASURED,
    adapter,
    assert_begins_as,
    assert_same,
    fails,
    fit,
    rows,
)
from lightning.pytorch import Callback
from peft import PeftModel
from transformers import AutoModelForCausalLM

from isara_pl.callbacks import AlphaStopping
from isara_pl.cli.main import main
from isara_pl.growth.pool import Verdict
from isara_pl.report.terminal import reading


def test_fit_leaves_one_complete_folder(options, tmp_path, tiny_llama, capsys):
    run_dir = fit(tmp_path / "run", options)
    assert {path.name for path in run_dir.iterdir()} == {
        "adapter", "checkpoints", "conditions.json", "config.yaml", "evaluation", "ledger.csv", "logs", "metrics.csv",
        "plan.json", "pool.jsonl", "rejected.jsonl", "report.html", "run.lock",
    }  # fmt: skip
    table = rows(run_dir)
    assert [row["outer_epoch"] for row in table] == ["0", "1", "2"]
    assert all(float(row["answer_nll"]) > 0 and 0 <= float(row["mc2"]) <= 1 for row in table)
    assert table[0]["novelty"] == table[0]["accepted"] == ""
    pool = [json.loads(line) for line in (run_dir / "pool.jsonl").read_text().splitlines()]
    for row in table[1:]:
        accepted = [sample for sample in pool if sample["outer_epoch"] == int(row["outer_epoch"])]
        assert int(row["accepted"]) == len(accepted)
        assert float(row["novelty"]) == pytest.approx(len(accepted) / 6, abs=1e-6)
        assert int(row["trained_on"]) == sum(s["outer_epoch"] <= int(row["outer_epoch"]) for s in pool)
        assert float(row["data_scaling"]) == pytest.approx(int(row["trained_on"]) / 8, abs=1e-6)  # of 8 seeds
    assert float(table[2]["answer_nll"]) < float(table[0]["answer_nll"])
    printed = capsys.readouterr().out
    assert "pretrained" in printed
    assert f"{run_dir / 'adapter'}" in printed
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), run_dir / "adapter")
    assert loaded.peft_config["default"].r == 4
    assert loaded.peft_config["default"].base_model_name_or_path == tiny_llama


def test_the_written_config_repeats_the_run(undisturbed, tmp_path):
    again = fit(tmp_path / "again", [f"--config={undisturbed / 'config.yaml'}"])
    assert_same(again, undisturbed)
    names = [{str(path.relative_to(run_dir)) for path in run_dir.rglob("*")} for run_dir in (undisturbed, again)]
    assert names[0] == names[1], "no name is dated or random"


def test_a_run_that_diverges_stops_and_names_the_samples_and_can_be_continued(options, tmp_path, capsys):
    options, run = [*options, "--data.outer_epochs=1"], f"--run_dir={tmp_path / 'run'}"
    error = fails(["fit", *options, run, "--model.learning_rate=1e30"], capsys)
    assert re.search(r"the loss is not finite \(NaN or infinite\) on the samples (seed-0000\d|1-0000\d)", error)
    assert f"safe in {tmp_path / 'run'}: 14 samples and 0 rejected candidates; there is no checkpoint yet" in error
    assert not (tmp_path / "run/adapter").exists()
    assert "model.learning_rate: 1e+30 then, 0.01 now" in fails(["fit", *options, run, "--ckpt_path=last"], capsys)
    run_dir = fit(tmp_path / "run", options, "--ckpt_path=last", "--data.on_change=continue")
    assert [row["outer_epoch"] for row in rows(run_dir)] == ["0", "1"]


def test_weights_that_are_not_finite_reach_no_checkpoint_and_no_export(options, tmp_path, capsys):
    run = f"--run_dir={tmp_path / 'run'}"
    # one step an epoch: the loss is finite, what it leaves is not
    one_step = [
        UNMEASURED,
        "--data.batch_size=16",
        "--data.epochs_per_outer_epoch=1",
        f"--trainer.callbacks+={__name__}.Poison",
    ]
    error = fails(["fit", *options, run, *one_step], capsys)
    assert "weights of the adapter are not finite any more" in error
    assert {path.name for path in (tmp_path / "run/checkpoints").glob("*")} == set()
    assert not (tmp_path / "run/adapter").exists()


class Poison(Callback):
    """Does to the weights what an overflow in a step would do."""

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        with torch.no_grad():
            optimizer.param_groups[0]["params"][0].fill_(float("nan"))


def test_predict_with_a_mistyped_folder_does_not_answer_with_the_pretrained_model(options, tmp_path, capsys):
    error = fails(["predict", *options, f"--run_dir={tmp_path / 'typo'}", "--ckpt_path=last"], capsys)
    assert "ckpt_path: no such file" in error


@pytest.mark.parametrize(
    ("capabilities", "given", "precision"),
    [({"avx512_bf16": True}, "null", "bf16-mixed"), ({}, "null", "32-true"), ({}, "bf16-mixed", "bf16-mixed")],
)
def test_the_precision_is_what_the_machine_computes_fast_unless_given(
    options, tmp_path, monkeypatch, capabilities, given, precision
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    run_dir = fit(tmp_path / "run", options, f"--trainer.precision={given}", *SEEDS_ALONE)
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["trainer"]["precision"] == precision


class OneAfterTheFirst(Callback):
    """A user's own filter, named in the YAML by its class path: from outer epoch 2 on, one candidate only."""

    def verdict(self, candidate, pool):
        number = int(candidate.id.split("-")[1])
        return Verdict(number, "late" if candidate.outer_epoch > 1 and number else None)


def test_alpha_stops_the_run_before_it_trains_on_the_exhausted_outer_epoch(options, tmp_path):
    own_filter = f"--trainer.callbacks+={__name__}.OneAfterTheFirst"
    run_dir = fit(tmp_path / "run", options, own_filter, "--alpha_stopping.alpha=0.5", "--data.outer_epochs=3")
    table = rows(run_dir)
    assert [row["outer_epoch"] for row in table] == ["0", "1", "2"]
    assert (table[2]["accepted"], table[2]["trained_on"], table[2]["answer_nll"]) == ("1", "0", "")
    rejected = [json.loads(line) for line in (run_dir / "rejected.jsonl").read_text().splitlines()]
    assert [row["filter"] for row in rejected if row["outer_epoch"] == 2] == ["OneAfterTheFirst"] * 5
    before = adapter(run_dir)
    fit(run_dir, [*options, own_filter], "--alpha_stopping.alpha=0.5", "--data.outer_epochs=3", "--ckpt_path=last")
    assert (rows(run_dir), adapter(run_dir)) == (table, before)


def test_alpha_in_the_first_outer_epoch_leaves_no_adapter_and_says_so(options, tmp_path):
    too_short = ["--trainer.callbacks+=isara_pl.callbacks.TooShort", "--trainer.callbacks.min_words=50"]
    with pytest.warns(UserWarning, match="nothing was trained"):
        run_dir = fit(tmp_path / "run", options, *too_short)
    assert rows(run_dir)[1]["accepted"] == "0"
    assert not (run_dir / "adapter").exists()


def test_predict_answers_a_file_of_questions(options, finished_run, tmp_path):
    questions = tmp_path / "questions.csv"
    questions.write_text("question\nWhy is it so?\nWho was it?\n")
    short = ["--model.prediction_sampling.max_new_tokens=5", f"--data.questions={questions}"]
    main(["predict", *options, f"--run_dir={finished_run}", "--ckpt_path=last", *short])
    answers = [json.loads(line) for line in (finished_run / "predictions.jsonl").read_text().splitlines()]
    assert [answer["question"] for answer in answers] == ["Why is it so?", "Who was it?"]
    assert all({"answer", "finished"} <= answer.keys() for answer in answers)


def test_predict_says_which_weights_answer_and_a_run_answers_with_what_it_trained(
    options, finished_run, tmp_path, capsys
):
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"Why {number}?"}) + "\n" for number in range(6)))
    asked = ["predict", *options, "--model.prediction_sampling.max_new_tokens=9", f"--data.questions={questions}"]
    answers = {}
    for name, more in (("named", ["--ckpt_path=last"]), ("not named", []), ("pretrained", [f"--run_dir={tmp_path}"])):
        main([*asked, f"--run_dir={finished_run}", *more])
        folder = tmp_path if name == "pretrained" else finished_run
        said = capsys.readouterr().out
        weights = "pretrained model" if name == "pretrained" else f"adapter of {finished_run}/checkpoints/last.ckpt"
        assert f"answers of the {weights}: {folder}/predictions.jsonl" in said
        answers[name] = (folder / "predictions.jsonl").read_text()
    assert answers["not named"] == answers["named"] != answers["pretrained"]


def test_validate_and_test_measure_a_checkpoint_as_fit_did(options, finished_run, capsys):
    figures = rows(finished_run)[-1]
    main(["validate", *options, f"--run_dir={finished_run}", "--ckpt_path=last"])
    assert rows(finished_run)[-1] == figures
    capsys.readouterr()
    main(["test", *options, f"--run_dir={finished_run}", "--ckpt_path=last"])
    assert figures["mc2"][:6] in capsys.readouterr().out


def test_validate_without_fit_measures_the_pretrained_model(options, tmp_path, undisturbed):
    run_dir = tmp_path / "run"
    main(["validate", *options, f"--run_dir={run_dir}"])
    (row,) = rows(run_dir)
    assert row["outer_epoch"] == "0"
    assert row["mc2"] == rows(undisturbed)[0]["mc2"]


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ([], "nothing here shows whether this run helped"),
        ([2.5, 2.0], "answer NLL: per held-out answer token, lower is better."),
        ([2.5, 2.0, 2.2], "lowest at outer epoch 1, not at the last outer epoch"),
        ([2.5, 2.6], "lowest at the pretrained model, not at the last"),
    ],
)
def test_the_end_of_a_run_says_what_the_table_shows(figures, words):
    rows = {place: {"answer_nll": figure} for place, figure in enumerate(figures)}
    assert words in reading(rows)
    assert "MC2" not in reading(rows)
    measured = {place: {**row, "mc2": 0.5} for place, row in rows.items()}
    assert ("MC2: in 0 to 1, higher is better." in reading(measured)) == bool(figures)


def test_without_held_out_pairs_everything_but_the_figures_is_there(options, tmp_path):
    run_dir = fit(tmp_path / "run", options, "--data.held_out=null")
    assert [(row["outer_epoch"], row["mc2"], row["answer_nll"]) for row in rows(run_dir)] == [
        ("1", "", ""),
        ("2", "", ""),
    ]
    assert (run_dir / "adapter/adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.seeds=nothing.jsonl"], "data.seeds: no such file or folder: nothing.jsonl"),
        (["--model.name=./nothing"], "model.name: no such file or folder: ./nothing"),
        (["--alpha_stopping.alpha=1.5"], "alpha_stopping.alpha is 1.5; allowed: 0 to 1"),
        (["--data.candidates_per_outer_epoch=0"], "data.candidates_per_outer_epoch is 0"),
        (["--data.encoder=./nothing"], "data.encoder: no such file or folder: ./nothing"),
        (["--data.outer_epoch=3"], "outer_epoch"),
        (["--model.learning_rate=fast"], "learning_rate"),
        (["--data.prompt_format=xml"], "prompt_format"),
        (["--trainer.callbacks+=isara_pl.callbacks.TooShort", "--trainer.callbacks.min_words=0"], "TooShort: min_words is 0; allowed: at least 1"),
        (["--trainer.reload_dataloaders_every_n_epochs=0"], "reload_dataloaders_every_n_epochs=1"),
        (["--ckpt_path=nothing.ckpt"], "nothing.ckpt"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_message(options, tmp_path, capsys, arguments, message):
    error = fails(["fit", *options, f"--run_dir={tmp_path / 'run'}", *arguments], capsys)
    assert message in error
    assert not (tmp_path / "run/pool.jsonl").exists()


def test_a_bad_line_of_the_seeds_file_is_named(options, tmp_path, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "Why?", "answer": "So."}\n{"question": ""}\n')
    error = fails(["fit", *options, f"--data.seeds={path}"], capsys)
    assert error.strip().endswith(f"error: {path}:2: the field `question` is empty; fill it, or remove the row")


def test_validate_and_predict_without_their_files_say_which_option_is_missing(options, tmp_path, capsys):
    run = f"--run_dir={tmp_path / 'run'}"
    for more in ([], ["--trainer.callbacks+=DiversityMonitor"]):  # which looks at samples, not at a model
        assert "data.held_out: there is nothing to measure on" in fails(
            ["validate", *options, run, "--data.held_out=null", *more], capsys
        )
    assert "data.questions: predict needs a file" in fails(["predict", *options, run], capsys)


def test_debug_shows_the_traceback(options, monkeypatch):
    monkeypatch.setenv("ISARA_PL_DEBUG", "1")
    with pytest.raises(ValueError, match="no such file"):
        main(["fit", *options, "--data.seeds=nothing.jsonl"])


def test_ctrl_c_ends_with_the_way_to_go_on(options, tmp_path, capsys, monkeypatch, undisturbed):
    def interrupt(self, trainer, growth):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AlphaStopping, "on_growth_end", interrupt)
        with pytest.raises(SystemExit) as stop:
            fit(tmp_path / "run", options, UNMEASURED)
    assert stop.value.code == 130
    said = capsys.readouterr().err
    assert "interrupted" in said
    assert "14 samples and 0 rejected candidates; there is no checkpoint yet" in said
    assert "To go on: the same command with --ckpt_path last" in said
    assert_begins_as(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_an_error_ends_the_real_process_with_1_and_no_traceback(tiny_llama):
    command = [sys.executable, "-m", "isara_pl", "fit", f"--model.name={tiny_llama}", "--data.seeds=nothing.jsonl"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: data.seeds: no such file")
    assert "Traceback" not in failed.stderr


def test_compare_tells_what_real_runs_are_worth(options, tmp_path, capsys, undisturbed):
    isara = shutil.copytree(undisturbed, tmp_path / "isara")
    sft = fit(tmp_path / "sft", options, "--data.candidates_per_outer_epoch=0", "--data.outer_epochs=1")
    icl = tmp_path / "icl"
    main(["validate", *options, f"--run_dir={icl}", "--trainer.callbacks=isara_pl.callbacks.TruthfulnessEvaluation",
          "--trainer.callbacks.demonstrations=2", "--trainer.callbacks.max_new_tokens=8"])  # fmt: skip
    capsys.readouterr()
    main(["compare", str(isara), str(sft), str(icl), f"--json={tmp_path / 'compared.json'}"])
    printed = capsys.readouterr().out
    for words in ("self-generation", "SFT on the seeds", "ICL", "pretrained", "isara", "MC2", "answer NLL"):
        assert words in printed
    (evaluation,) = json.loads((tmp_path / "compared.json").read_text())["evaluations"]
    values = {row["method"]: row["values"] for row in evaluation["rows"]}
    for run_dir in (isara, sft):
        for ours, theirs in (("mc2", "mc2"), ("answer_nll", "answer_nll"), ("answer_nll", "best_answer_nll")):
            assert values[run_dir.name][ours] == pytest.approx(float(rows(run_dir)[-1][theirs]), rel=1e-5)
    assert values["pretrained"]["mc2"] == pytest.approx(float(rows(isara)[0]["mc2"]), rel=1e-5)
    main(["compare", "--alpha", str(isara)])
    assert "never  outer epoch 2" in capsys.readouterr().out
    error = fails(["compare", str(isara), str(sft), "--reference=sfd"], capsys)
    assert error.startswith("error: --reference: no method is named 'sfd'. Did you mean 'sft'?")
    assert "names no run folder" in fails(["compare", str(tmp_path / "nothing")], capsys)


class PoisonedStep(Callback):
    """Spoils the weights in the first step, as an overflow in its gradients would."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        print("batch of", ", ".join(batch["sample_ids"]))
        if trainer.global_step:
            with torch.no_grad():
                trainer.optimizers[0].param_groups[0]["params"][0].fill_(float("nan"))


@pytest.mark.parametrize("batches", [1, 2])
def test_the_samples_of_the_step_that_spoiled_the_weights_are_named(options, tmp_path, capsys, batches):
    options = [*options, UNMEASURED, f"--trainer.accumulate_grad_batches={batches}"]
    with pytest.raises(SystemExit):
        main(["fit", *options, f"--run_dir={tmp_path / 'run'}", f"--trainer.callbacks+={__name__}.PoisonedStep"])
    said = capsys.readouterr()
    samples = re.findall("batch of (.*)", said.out)
    assert len(samples) == batches
    assert f"not finite any more (NaN or infinite), since the step on the samples {', '.join(samples)};" in said.err
