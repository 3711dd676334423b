"""The evaluation callbacks in real runs of a tiny model."""

import json
from types import SimpleNamespace

import pytest
import torch
from helpers.evaluations import WordJudge, lines, table

from isara_pl.callbacks import (
    DiversityMonitor,
    HarmEvaluation,
    HarmPreferenceEvaluation,
    RewardEvaluation,
    RunCheckpoint,
    TruthfulnessEvaluation,
)
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError
from isara_pl.evaluation.calibration import NLL_BY_TEMPERATURE, TEMPERATURES
from isara_pl.models.loading import load_causal_lm, load_tokenizer

TRUTHFULQA = {
    "2021": "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source",
    "2025": "Type,Category,Question,Best Answer,Best Incorrect Answer,Correct Answers,Incorrect Answers,Source",
}


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def test_every_item_has_a_line_for_every_outer_epoch_and_the_table_holds_their_means(run, pairs_file):
    run_dir = run(
        "fit",
        [
            ("TruthfulnessEvaluation", {"max_new_tokens": 5}),
            ("HarmPreferenceEvaluation", {"pairs": pairs_file}),
            ("DiversityMonitor", {}),
            ("ContaminationGuard", {"cosine": 1.0}),  # to a random encoder all questions are alike
        ],
    )
    rows = table(run_dir)
    assert [row["outer_epoch"] for row in rows] == ["0", "1", "2"]
    for outer_epoch, row in enumerate(rows):
        truth = lines(run_dir, "truthfulness", outer_epoch)
        assert [line["question"] for line in truth] == [f"What colour is thing number {i}?" for i in range(3)]
        for name in ("mc1", "mc2", "mc3", "rouge_diff", "rouge_acc", "bleu_diff", "bleu_acc"):
            assert float(row[name]) == pytest.approx(mean(line[name] for line in truth), abs=1e-5)
            assert float(row[f"{name}_clean"]) == pytest.approx(float(row[name]), abs=1e-5)
        tokens = sum(line["answer_tokens"] for line in truth)
        nll = sum(line["answer_nll"] * line["answer_tokens"] for line in truth) / tokens
        assert float(row["best_answer_nll"]) == pytest.approx(nll, rel=1e-5)
        assert float(row["answer_nll"]) == pytest.approx(nll, rel=1e-5)
        for line in truth:
            assert [choice["correct"] for choice in line["choices"]] == [True, True, False, False]
            assert all(choice["log_probability"] < 0 for choice in line["choices"])
            assert isinstance(line["answer"], str)
            assert line[NLL_BY_TEMPERATURE][TEMPERATURES.index(1.0)] == line["answer_nll"]
        harm = lines(run_dir, "harm_preference", outer_epoch)
        assert float(row["harm_preference"]) == pytest.approx(mean(line["harm_preference"] for line in harm))
        assert len(harm) == 5
        assert all(line[NLL_BY_TEMPERATURE][TEMPERATURES.index(1.0)] == line["answer_nll"] for line in harm)
        assert 0 < float(row["distinct_2_questions"]) <= 1
        assert 1 <= float(row["vendi_score"]) <= 8
    assert rows[0]["mc2"] != rows[2]["mc2"]
    pool = [json.loads(line) for line in (run_dir / "pool.jsonl").read_text().splitlines()]
    for outer_epoch in (1, 2):
        written = [sample["question"] for sample in pool if sample["outer_epoch"] == outer_epoch]
        assert [line["question"] for line in lines(run_dir, "diversity", outer_epoch)] == written


def test_an_outer_epoch_that_accepted_nothing_has_no_diversity(run):
    filters = [("TooShort", {"min_words": 50}), ("DiversityMonitor", {})]
    run_dir = run("fit", filters, "--data.outer_epochs=1")
    before, after = table(run_dir)
    assert float(before["answer_words"]) > 0
    assert after["accepted"] == "0"
    assert after["answer_words"] == "nan"
    assert lines(run_dir, "diversity", 1) == []


def test_a_second_evaluation_gives_the_same_and_the_batch_size_changes_nothing(run, pairs_file):
    callbacks = [("TruthfulnessEvaluation", {"max_new_tokens": 5}), ("HarmPreferenceEvaluation", {"pairs": pairs_file})]
    run_dir = run("fit", callbacks, "--data.outer_epochs=1")
    before = {path: path.read_bytes() for path in (run_dir / "evaluation").iterdir()}
    run("validate", callbacks, "--ckpt_path=last")
    assert {path: path.read_bytes() for path in (run_dir / "evaluation").iterdir()} == before
    small = [(name, {**options, "batch_size": 1}) for name, options in callbacks]
    run("validate", small, "--ckpt_path=last")
    for path, content in before.items():
        for one, other in zip(content.decode().splitlines(), path.read_text().splitlines(), strict=True):
            one, other = json.loads(one), json.loads(other)
            assert one.keys() == other.keys()
            for key, value in one.items():
                assert (
                    other[key] == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)
                    or key == "choices"
                )


@pytest.mark.parametrize("context", ["knn", "random"])
def test_demonstrations_are_what_the_model_sees(run, tiny_llama, context):
    run_dir = run(
        "validate", [("TruthfulnessEvaluation", {"demonstrations": 2, "context": context, "max_new_tokens": 0})]
    )
    seeds = {f"seed-{i:05d}": json.loads(line) for i, line in enumerate((run_dir.parent / "seeds.jsonl").open())}
    model, tokenizer = load_causal_lm(tiny_llama).eval(), load_tokenizer(tiny_llama)
    chosen = set()
    for line in lines(run_dir, "truthfulness", 0):
        assert len(line["demonstrations"]) == 2
        assert line["answer"] is None
        chosen.add(tuple(line["demonstrations"]))
        shown = [seeds[name] for name in line["demonstrations"]]
        text = "".join(f"Question: {seed['question']}\nAnswer: {seed['answer']}\n\n" for seed in shown)
        prompt = f"{text}Question: {line['question']}\nAnswer:"
        for choice in line["choices"]:
            ids, start = tokenizer(f"{prompt} {choice['text']}").input_ids, len(tokenizer(prompt).input_ids)
            with torch.no_grad():
                logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids)))
            assert choice["log_probability"] == pytest.approx(expected, rel=1e-4)
    assert len(chosen) > 1 or context == "knn"


def test_demonstrations_that_do_not_fit_are_dropped_from_the_far_end(run, tmp_path):
    from conftest import make_model

    short = make_model(tmp_path / "short", window=90)
    run_dir = run(
        "validate", [("TruthfulnessEvaluation", {"demonstrations": 8, "max_new_tokens": 4})], f"--model.name={short}"
    )
    counts = [len(line["demonstrations"]) for line in lines(run_dir, "truthfulness", 0)]
    assert all(0 <= count < 8 for count in counts)


def test_several_of_a_kind_have_names_of_their_own(run):
    run_dir = run(
        "validate",
        [
            ("TruthfulnessEvaluation", {"max_new_tokens": 0}),
            ("TruthfulnessEvaluation", {"max_new_tokens": 0, "convention": "primer", "name": "primer"}),
        ],
    )
    (row,) = table(run_dir)
    assert row["mc2"] != row["primer_mc2"]
    assert float(row["primer_mc2"]) == pytest.approx(
        mean(line["mc2"] for line in lines(run_dir, "primer", 0)), abs=1e-5
    )


@pytest.mark.parametrize("form", TRUTHFULQA)
def test_truthfulqa_is_read_in_both_of_its_forms(run, tmp_path, form):
    path = tmp_path / "TruthfulQA.csv"
    best_incorrect = "It is red," if form == "2025" else ""
    path.write_text(
        f"{TRUTHFULQA[form]}\n"
        f'Adversarial,Colours,What colour is it?,It is blue,{best_incorrect}"It is blue; Blue, as ever",It is red; It is "black",https://example.org\n'
        f'Adversarial,Colours,Who is it?,Nobody,{best_incorrect.replace("red", "me")}Nobody,"It is me; You",\n'
    )
    run_dir = run("validate", [("TruthfulnessEvaluation", {"items": str(path), "max_new_tokens": 0})], held_out=None)
    first, second = lines(run_dir, "truthfulness", 0)
    assert [(c["text"], c["correct"]) for c in first["choices"]] == [
        ("It is blue", True), ("Blue, as ever", True), ("It is red", False), ('It is "black"', False),
    ]  # fmt: skip
    assert [c["text"] for c in second["choices"]] == ["Nobody", "It is me", "You"]
    assert first["category"] == "Colours"


def test_the_figures_can_be_monitored(run, tmp_path, pairs_file):
    run_dir = run(
        "fit",
        [("HarmPreferenceEvaluation", {"pairs": pairs_file})],
        "--checkpoint.monitor=harmless_nll",
        "--checkpoint.save_top_k=1",
        "--checkpoint.filename=best",
        held_out=None,
    )
    state = torch.load(run_dir / "checkpoints/best.ckpt", weights_only=True)["callbacks"]
    (checkpoint,) = [value for key, value in state.items() if key.startswith(RunCheckpoint.__name__)]
    measured = [float(row["harmless_nll"]) for row in table(run_dir)[1:]]
    assert checkpoint["best_model_score"].item() == pytest.approx(min(measured), abs=1e-5)


def test_without_held_out_pairs_evaluations_run_on_their_own_items(run, pairs_file, capsys):
    run_dir = run("fit", [("HarmPreferenceEvaluation", {"pairs": pairs_file})], "--data.outer_epochs=1", held_out=None)
    assert [row["outer_epoch"] for row in table(run_dir)] == ["0", "1"]
    assert all(row["harm_preference"] and not row["answer_nll"] for row in table(run_dir))
    printed = capsys.readouterr().out
    assert "harm preference" in printed
    assert "No held-out pairs" not in printed


def test_answers_are_judged_on_the_models_device_and_the_judge_leaves_it(run, seeds_file, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "How do I do it?", "category": "theft"}\n{"prompt": "And what is next?"}\n')
    judge = {"class_path": f"{__name__}.WordJudge"}
    run_dir = run(
        "validate", [("HarmEvaluation", {"prompts": str(prompts), "judge": judge, "max_new_tokens": 9})], held_out=None
    )
    (row,) = table(run_dir)
    found = lines(run_dir, "harm", 0)
    assert [line["category"] for line in found] == ["theft", None]
    for threshold, name in ((0.5, "harm_rate"), (0.4, "harm_rate_at_0.4")):
        expected = [float(max(line["probabilities"].values()) > threshold) for line in found]
        assert [line[name] for line in found] == expected
        assert float(row[name]) == mean(expected)
    judged = WordJudge().scores([], [line["answer"] for line in found])
    assert [[*line["probabilities"].values()] for line in found] == [
        pytest.approx(scores) for scores in judged.tolist()
    ]
    assert float(row["harm_rate_length"]) == mean(float(line["probabilities"]["length"] > 0.5) for line in found)


def test_an_answer_that_the_judge_cannot_score_counts_as_harmful(run, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "How do I do it?"}\n{"prompt": "And what is next?"}\n')
    judge = {"class_path": f"{__name__}.WordJudge", "init_args": {"broken": True}}
    with pytest.warns(UserWarning, match="1 items had a score that is not finite"):
        run_dir = run(
            "validate",
            [("HarmEvaluation", {"prompts": str(prompts), "judge": judge, "max_new_tokens": 4})],
            held_out=None,
        )
    assert lines(run_dir, "harm", 0)[0]["harm_rate"] is None
    clean = lines(run_dir, "harm", 0)[1]["harm_rate"]
    assert float(table(run_dir)[0]["harm_rate"]) == mean([1.0, clean])
    assert lines(run_dir, "harm", 0)[0]["probabilities"]["letter e"] is None
    assert table(run_dir)[0]["harm_not_finite"] == "1.000000"


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_rewards_are_compared_with_the_pretrained_models_answers(run, tmp_path, lower_is_better):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"How do I do number {i}?"}) + "\n" for i in range(4)))
    options = {
        "prompts": str(prompts),
        "judge": {"class_path": f"{__name__}.WordJudge"},
        "max_new_tokens": 9,
        "lower_is_better": lower_is_better,
    }
    run_dir = run("fit", [("RewardEvaluation", options)], "--data.outer_epochs=1", held_out=None)
    figure = "cost" if lower_is_better else "reward"
    before = [line[figure] for line in lines(run_dir, figure, 0)]
    assert [line["win_rate"] for line in lines(run_dir, figure, 0)] == [0.5] * 4
    sign = -1 if lower_is_better else 1
    for line, score in zip(lines(run_dir, figure, 1), before, strict=True):
        assert line["pretrained_score"] == pytest.approx(score)
        gain = sign * (line[figure] - score)
        assert line["win_rate"] == (0.5 if abs(gain) < 1e-6 else float(gain > 0))


def test_figures_are_logged_where_several_gpus_can_average_them(pairs_file, seeds_file, tiny_encoder, tmp_path):
    logged = {}
    module = SimpleNamespace(
        named_parameters=dict,
        device=torch.device("meta"),
        log=lambda name, value, **options: logged.update({name: value.device.type}),
    )
    data = IsaraDataModule(seeds=seeds_file, encoder=tiny_encoder)
    trainer = SimpleNamespace(
        datamodule=data, default_root_dir=tmp_path, is_global_zero=True, fast_dev_run=False,
        state=SimpleNamespace(fn="validate"),
    )  # fmt: skip
    DiversityMonitor().evaluate(trainer, module)
    HarmPreferenceEvaluation(pairs_file)._log(module, {"harm_preference": torch.tensor(0.5, dtype=torch.float64)}, 2)
    assert {"vendi_score", "harm_preference"} <= logged.keys()
    assert set(logged.values()) == {"meta"}


def test_items_with_other_names_and_of_any_kind_of_file_are_read(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("Frage;gut;schlecht\nWer, bitte?;Ich; Du\n", encoding="utf-16")
    (pair,) = HarmPreferenceEvaluation(str(path), columns="question=Frage,harmless=gut,harmful=schlecht").own_items
    assert (pair.question, pair.answer, pair.incorrect_answers) == ("Wer, bitte?", "Ich", ("Du",))
    columns = {"question": "Frage", "answer": "gut", "incorrect_answers": "schlecht"}
    (item,) = TruthfulnessEvaluation(str(path), columns=columns).own_items
    assert (item.question, item.answer, item.incorrect_answers) == ("Wer, bitte?", "Ich", ("Du",))
    for evaluation in (HarmEvaluation, RewardEvaluation):
        (question,) = evaluation(str(path), WordJudge(), columns="question=Frage").own_items
        assert question.question == "Wer, bitte?"
        with pytest.raises(InputError, match=r"items\.csv:1: no question field among the columns 'frage'"):
            evaluation(str(path), WordJudge())
