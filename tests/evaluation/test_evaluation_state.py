"""What an evaluation's figures belong to: which outer epoch, which training data, which precision."""

import json
import math

import pytest
import torch
from helpers.evaluations import WordJudge, lines, table
from lightning.pytorch import LightningModule, Trainer

from isara_pl import IsaraDataModule, IsaraModule
from isara_pl.callbacks import AlphaStopping, HarmEvaluation, TooShort, TruthfulnessEvaluation
from isara_pl.cli.main import main
from isara_pl.errors import InputError
from isara_pl.results.items import read_results

SCORES_ONLY = {"max_new_tokens": 0}


def test_another_checkpoint_measured_after_fit_is_written_as_its_own_outer_epoch(parts, tmp_path):
    module, data, trainer = parts()
    trainer.fit(module, datamodule=data)
    before = read_results(tmp_path / "run/evaluation/truthfulness.jsonl")
    checkpoint = next((tmp_path / "run/checkpoints").glob("*.ckpt"))  # Lightning's own keeps the last
    assert data.trained_outer_epochs == 2
    saved = torch.load(checkpoint, weights_only=True)
    first = tmp_path / "first.ckpt"
    saved["IsaraDataModule"]["trained_outer_epochs"] = 1
    torch.save(saved, first)
    trainer.test(module, datamodule=data, ckpt_path=first, verbose=False, weights_only=True)
    assert data.measured_outer_epoch == 1
    after = read_results(tmp_path / "run/evaluation/truthfulness.jsonl")
    assert [line for line in after if line["outer_epoch"] == 2] == [line for line in before if line["outer_epoch"] == 2]


def test_an_outer_epoch_that_alpha_ended_is_not_what_is_measured_after_fit(parts, tmp_path):
    class FirstOnly(TooShort):
        def verdict(self, candidate, pool):
            self.min_words = 1 if candidate.outer_epoch == 1 else 99
            return super().verdict(candidate, pool)

    module, data, trainer = parts(callbacks=[FirstOnly(), AlphaStopping(alpha=0.5)])
    trainer.fit(module, datamodule=data)
    before = table(tmp_path / "run")
    trainer.validate(module, datamodule=data, verbose=False)
    assert data.measured_outer_epoch == 1
    assert {line["outer_epoch"] for line in read_results(tmp_path / "run/evaluation/truthfulness.jsonl")} == {1}
    assert [row["outer_epoch"] for row in before] == [row["outer_epoch"] for row in table(tmp_path / "run")]


def test_a_checkpoint_measured_elsewhere_says_that_its_training_data_are_not_there(run, tmp_path):
    callbacks = [
        ("TruthfulnessEvaluation", SCORES_ONLY),
        ("ContaminationGuard", {"cosine": 1.0}),
        ("DiversityMonitor", {}),
    ]
    fitted = run("fit", callbacks, "--data.outer_epochs=1")
    with pytest.warns(UserWarning, match=r"no pool\.jsonl in .*elsewhere"):
        elsewhere = run("validate", callbacks, f"--ckpt_path={fitted / 'checkpoints/last.ckpt'}", name="elsewhere")
    assert {line["contaminated"] for line in lines(elsewhere, "truthfulness", 1)} == {None}
    assert not (elsewhere / "evaluation/diversity.jsonl").exists()


def test_a_plain_validation_in_a_fitted_folder_keeps_what_is_known_of_its_outer_epochs(run, tmp_path, seeds_file):
    item = {"question": "Why is the sea like this on day number 1?", "answer": "So.", "incorrect_answers": ["No."]}
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(item) + "\n")
    callbacks = [
        ("TruthfulnessEvaluation", {**SCORES_ONLY, "items": str(path)}),
        ("ContaminationGuard", {"cosine": 1.0}),
    ]
    fitted = run("fit", callbacks, "--data.outer_epochs=1", held_out=None)
    before = lines(fitted, "contamination", 1)
    assert before
    run("validate", callbacks, held_out=None)
    assert lines(fitted, "contamination", 1) == before


def test_where_no_item_is_clean_the_clean_figures_are_not_those_of_the_outer_epoch_before(run, tmp_path):
    first = run("fit", [], held_out=None, name="first")
    written = [json.loads(line) for line in (first / "pool.jsonl").open()]
    late = next(sample for sample in written if sample["outer_epoch"] == 2)
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"question": late["question"], "answer": "So.", "incorrect_answers": ["No."]}) + "\n")
    options = {**SCORES_ONLY, "items": str(path)}
    rows = table(run("fit", [("TruthfulnessEvaluation", options), ("ContaminationGuard", {"cosine": 1.0})]))
    assert [math.isnan(float(row["mc2_clean"])) for row in rows] == [False, False, True]


def test_an_item_that_its_own_prompt_gives_away_is_contaminated(run, tmp_path):
    items = [
        ("Why is the sea like this on day number 1?", "So."),
        ("Who wrote the long book about whales?", "Melville."),
    ]
    path = tmp_path / "items.jsonl"
    path.write_text(
        "".join(json.dumps({"question": q, "answer": a, "incorrect_answers": ["No."]}) + "\n" for q, a in items)
    )
    options = {**SCORES_ONLY, "items": str(path), "demonstrations": 8}
    run_dir = run(
        "validate", [("TruthfulnessEvaluation", options), ("ContaminationGuard", {"cosine": 1.0})], held_out=None
    )
    assert [line["contaminated"] for line in lines(run_dir, "truthfulness", 0)] == [True, False]


def test_in_bf16_true_the_pretrained_model_ties_with_itself_and_questions_take_one_row(run, tmp_path, monkeypatch):
    from isara_pl.evaluation import choice_scores as scoring

    trees = []
    own = scoring.tree_scores
    monkeypatch.setattr(scoring, "tree_scores", lambda *given: trees.append(1) or own(*given))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"How do I do number {i}?"}) + "\n" for i in range(6)))
    judge = {"class_path": "test_evaluations.WordJudge"}
    rewards = {"prompts": str(prompts), "judge": judge, "max_new_tokens": 9}
    run_dir = run(
        "validate",
        [("RewardEvaluation", rewards), ("TruthfulnessEvaluation", SCORES_ONLY)],
        "--trainer.precision=bf16-true",
    )
    assert [line["win_rate"] for line in lines(run_dir, "reward", 0)] == [0.5] * 6
    assert len(trees) > 1


def test_two_of_a_kind_without_names_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("validate", [("TruthfulnessEvaluation", SCORES_ONLY), ("TruthfulnessEvaluation", {"convention": "primer"})])
    assert "both have the name 'truthfulness'" in capsys.readouterr().err


def test_a_judge_without_any_finite_score_is_an_error(run, tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "How do I do it?"}\n')
    judge = {"class_path": "test_evaluations.WordJudge", "init_args": {"broken": True}}
    options = {"prompts": str(prompts), "judge": judge, "max_new_tokens": 4}
    with pytest.raises(SystemExit):
        run("validate", [("HarmEvaluation", options)], held_out=None)
    assert "the judge WordJudge gave no answer a finite score" in capsys.readouterr().err


def test_a_module_without_validation_is_told_that_nothing_would_be_measured(seeds_file, tiny_encoder, tmp_path):
    class NoValidation(LightningModule):
        def generate(self, prompts, sampling, seeds):
            raise AssertionError

    (tmp_path / "prompts.jsonl").write_text('{"prompt": "How do I do it?"}\n')
    evaluation = HarmEvaluation(str(tmp_path / "prompts.jsonl"), WordJudge())
    trainer = Trainer(callbacks=[evaluation], logger=False, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(InputError, match="NoValidation has no validation_step"):
        evaluation.setup(trainer, NoValidation(), "fit")
    assert IsaraDataModule(seeds_file, encoder=tiny_encoder).val_dataloader() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "nearest"}, "context is 'nearest'; allowed: knn or random"),
        ({"convention": "Primer"}, "convention is 'Primer'; allowed: task or primer"),
        ({"name": "diversity"}, "but not diversity or contamination or held_out_answers or held-out"),
    ],
)
def test_python_is_told_of_wrong_choices_as_the_command_line_is(options, message):
    with pytest.raises(InputError, match=message):
        TruthfulnessEvaluation(**options)


def test_a_named_evaluation_alone_is_something_measured(run, tmp_path, capsys):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"question": "How is it?", "chosen": "No.", "rejected": "Yes!"}\n')
    run("validate", [("HarmPreferenceEvaluation", {"pairs": str(pairs), "name": "hh"})], held_out=None)
    assert "No held-out pairs" not in capsys.readouterr().out


def test_runs_that_were_measured_in_different_ways_are_not_compared(run, capsys):
    task = run("validate", [("TruthfulnessEvaluation", SCORES_ONLY)], name="task")
    primer = run("validate", [("TruthfulnessEvaluation", {**SCORES_ONLY, "convention": "primer"})], name="primer")
    with pytest.raises(SystemExit):
        main(["compare", str(task), str(primer)])
    error = capsys.readouterr().err
    assert "measured in different ways" in error
    assert "convention primer" in error


def test_a_loop_that_accepted_nothing_is_still_self_generation_and_other_pairs_are_no_baseline(run, tmp_path, capsys):
    one = "--data.outer_epochs=1"
    nothing = run(
        "fit", [("TooShort", {"min_words": 50}), ("TruthfulnessEvaluation", SCORES_ONLY)], one, name="nothing"
    )
    more = tmp_path / "more.jsonl"
    more.write_text(
        "".join(json.dumps({"question": f"What is {i} and {i}?", "answer": f"It is {2 * i}."}) + "\n" for i in range(9))
    )
    other = run(
        "fit", [("TruthfulnessEvaluation", SCORES_ONLY)], "--data.candidates_per_outer_epoch=0", "--data.outer_epochs=1",
        f"--data.seeds={more}", name="other",
    )  # fmt: skip
    main(["compare", str(nothing), str(other), f"--json={tmp_path / 'found.json'}"])
    (found,) = json.loads((tmp_path / "found.json").read_text())["evaluations"]
    assert {row["method"]: row["kind"] for row in found["rows"]} == {
        "pretrained": "pretrained", "nothing": "self-generation", "other": "SFT on other pairs",
    }  # fmt: skip
    assert "No run of SFT on the seeds is among these" in " ".join(capsys.readouterr().out.split())


def test_local_attention_that_counts_along_the_row_is_scored_in_plain_rows(tmp_path, tiny_llama):
    from transformers import AutoModelForCausalLM, GPTNeoConfig

    from isara_pl.evaluation.choice_scores import Question, choice_scores
    from isara_pl.models.loading import load_tokenizer

    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=400, hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]],
        window_size=48, initializer_range=0.2, max_position_embeddings=512,
    )  # fmt: skip
    model, tokenizer = AutoModelForCausalLM.from_config(config).eval(), load_tokenizer(tiny_llama)
    choices = tuple(f" {word} scatters blue light more than red light." for word in ("Air", "Rain", "The sea"))
    question = Question("Question: Why so?\nAnswer:", choices)
    together = choice_scores(model, tokenizer, [question], 4)[0]
    for choice, score in zip(choices, together, strict=True):
        (alone,) = choice_scores(model, tokenizer, [Question(question.prompt, (choice,))], 4)[0]
        assert score.log_probability == pytest.approx(alone.log_probability, abs=1e-3)


def test_in_mixed_precision_the_batch_size_changes_no_figure_and_the_base_keeps_its_type(run, monkeypatch):
    callbacks = [("TruthfulnessEvaluation", {"max_new_tokens": 5})]
    mixed = ["--trainer.precision=bf16-mixed", "--data.epochs_per_outer_epoch=2", "--data.outer_epochs=1"]
    kept = []
    own = IsaraModule.training_step
    monkeypatch.setattr(
        IsaraModule, "training_step", lambda self, *given: kept.append(self.adapted.dtype) or own(self, *given)
    )
    whole = table(run("fit", callbacks, *mixed))
    assert set(kept) == {torch.bfloat16}
    small = [("TruthfulnessEvaluation", {"max_new_tokens": 5, "batch_size": 1})]
    one = table(
        run("validate", small, *mixed, "--ckpt_path=last", "--data.batch_size=1", "--model.generation_tokens=1")
    )
    for name in ("answer_nll", "best_answer_nll", "mc1", "mc2", "mc3", "rouge_diff", "bleu_diff"):
        assert float(one[-1][name]) == pytest.approx(float(whole[-1][name]), abs=1e-4)
    faster = table(run("validate", callbacks, *mixed, "--ckpt_path=last", "--model.evaluation_precision=trainer"))
    assert float(faster[-1]["answer_nll"]) != float(whole[-1]["answer_nll"])
    assert float(faster[-1]["answer_nll"]) == pytest.approx(float(whole[-1]["answer_nll"]), rel=0.05)
