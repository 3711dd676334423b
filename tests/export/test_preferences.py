"""`export --preferences`: pairs of answers in TRL's format, which HarmPreferenceEvaluation reads back."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import write_held_out, write_options, write_seeds
from datasets import load_dataset
from helpers.command_line import UNMEASURED
from transformers import AutoModelForCausalLM, AutoTokenizer

from isara_pl.cli.commands import run_command
from isara_pl.cli.main import main
from isara_pl.errors import InputError
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import read_preferences
from isara_pl.models.loading import load_tokenizer
from isara_pl.results.items import read_results


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def change(run: Path, section: str, **options) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[section] |= options
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def exported(run: Path, folder: Path) -> Path:
    run_command("export", [str(run), f"--to={folder}", "--preferences"])
    return folder / "dataset"


@pytest.fixture(scope="module")
def greedy(speaker, tiny_encoder, tmp_path_factory) -> Path:
    """Give a run whose answers are the likeliest ones, so that plain transformers can say what they are."""
    folder = tmp_path_factory.mktemp("greedy")
    files = write_seeds(folder), write_held_out(folder)
    likeliest = ["--data.answer_sampling.do_sample=false", "--data.outer_epochs=1", UNMEASURED]
    main(["fit", *write_options(folder, speaker, tiny_encoder, *files), f"--run_dir={folder / 'run'}", *likeliest])
    return folder / "run"


@pytest.fixture(scope="module")
def written(greedy, tmp_path_factory) -> Path:
    return exported(greedy, tmp_path_factory.mktemp("written") / "export")


def test_chosen_is_the_answer_of_the_pool_and_rejected_the_trained_models_own_without_demonstrations(
    written, greedy, tmp_path
):
    # as anyone who loads the export asks it; its generation_config ends answers as the run does
    tokenizer = AutoTokenizer.from_pretrained(written.parent / "model")
    model = AutoModelForCausalLM.from_pretrained(written.parent / "model")
    pool = {sample["id"]: sample for sample in lines(greedy / "pool.jsonl")}
    rows = load_dataset(str(written), "preferences", split="train", cache_dir=str(tmp_path)).to_list()
    assert len(rows) == len(pool) == 14
    for row in rows:
        sample = pool[row["id"]]
        assert row["prompt"] == f"Question: {' '.join(sample['question'].split())}\nAnswer:"
        assert row["chosen"] == f" {' '.join(sample['answer'].split())}"
        asked = tokenizer(row["prompt"], return_tensors="pt")
        said = model.generate(**asked, max_new_tokens=8, do_sample=False)[0, asked["input_ids"].shape[1] :]
        own = tokenizer.decode(said, skip_special_tokens=True).strip()
        assert row["rejected"].strip() == " ".join(own.split())
        assert (row["outer_epoch"], row["answer_demonstrations"]) == (
            sample["outer_epoch"],
            sample["answer_demonstrations"],
        )


def test_the_conversational_file_is_that_of_trl_and_comes_back_as_plain_questions(written, greedy):
    rows = lines(written / "preference_messages.jsonl")
    for row in rows:
        roles = [[turn["role"] for turn in row[name]] for name in ("prompt", "chosen", "rejected")]
        assert roles == [["user"], ["assistant"], ["assistant"]]
    pool = {sample["id"]: sample for sample in lines(greedy / "pool.jsonl")}
    back = read_preferences(written / "preference_messages.jsonl", "pair")
    assert [(pair.question, pair.answer) for pair in back] == [
        (pool[row["id"]]["question"].strip(), pool[row["id"]]["answer"].strip()) for row in rows
    ]
    assert all(
        pair.incorrect_answers == (row["rejected"][0]["content"].strip(),) for pair, row in zip(back, rows, strict=True)
    )


def test_harm_preference_measures_them(written, options, tmp_path):
    callback = [
        "--trainer.callbacks=isara_pl.callbacks.HarmPreferenceEvaluation",
        f"--trainer.callbacks.pairs={written / 'preference_messages.parquet'}",
    ]
    callback.append("--data.allow_overlap=true")  # what the pool holds was trained on
    main(["validate", *options, *callback, f"--run_dir={tmp_path / 'measured'}"])
    measured = read_results(tmp_path / "measured/evaluation/harm_preference.jsonl")
    assert [line["question"] for line in measured] == [
        row["prompt"][0]["content"].strip() for row in lines(written / "preference_messages.jsonl")
    ]


@pytest.mark.parametrize("name", ["chat", "safe-rlhf"])
def test_texts_are_in_the_form_that_was_trained_on(greedy, speaker, tmp_path, name):
    run = Path(shutil.copytree(greedy, tmp_path / "run"))
    change(run, "data", prompt_format=name)
    texts, pool = prompt_format(name, load_tokenizer(speaker)), {s["id"]: s for s in lines(run / "pool.jsonl")}
    rows = lines(exported(run, tmp_path / "export") / "preferences.jsonl")
    assert rows
    for row in rows:
        assert row["prompt"] == texts.answer_prompt(pool[row["id"]]["question"])
        assert row["chosen"] == texts.answer_text(pool[row["id"]]["answer"])


def test_pairs_of_the_same_text_are_left_out_and_counted(written, greedy, tmp_path, capsys):
    run = Path(shutil.copytree(greedy, tmp_path / "run"))
    own = {row["id"]: row["rejected"].strip() for row in lines(written / "preferences.jsonl")}
    pool = lines(run / "pool.jsonl")
    for sample in (pool[0], pool[-1]):
        sample["answer"] = own[sample["id"]]
    pool[1]["answer"] += "\0"
    (run / "pool.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in pool))
    folder = exported(run, tmp_path / "export")
    left = {sample["id"] for sample in pool} - {row["id"] for row in lines(folder / "preferences.jsonl")}
    assert left == {pool[0]["id"], pool[1]["id"], pool[-1]["id"]}
    assert "preferences: 5 answers from demonstrations and 6 of seeds" in (said := capsys.readouterr().out)
    assert "left out: 2 where both are the same, 1 where there is no text" in said
    card = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    assert "Left out are 2 questions to which it says the same" in card
    assert "nobody has compared the two" in card


def test_drawn_answers_follow_from_the_seed(greedy, tmp_path):
    run = Path(shutil.copytree(greedy, tmp_path / "run"))
    change(run, "data", answer_sampling={"max_new_tokens": 8})
    first, again = (exported(run, tmp_path / name) for name in ("first", "again"))
    assert (first / "preferences.parquet").read_bytes() == (again / "preferences.parquet").read_bytes()
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "seed_everything": 8}))
    other = exported(run, tmp_path / "other")
    assert (first / "preferences.jsonl").read_bytes() != (other / "preferences.jsonl").read_bytes()


def test_without_the_option_there_are_none(greedy, tmp_path):
    run_command("export", [str(greedy), f"--to={tmp_path / 'export'}"])
    assert not [*(tmp_path / "export/dataset").glob("preference*")]
    assert "referenc" not in (tmp_path / "export/dataset/README.md").read_text(encoding="utf-8").split("## Columns")[1]


def test_a_damaged_sampling_is_told_and_nothing_is_left(greedy, tmp_path):
    run = Path(shutil.copytree(greedy, tmp_path / "run"))
    change(run, "data", answer_sampling={"top_q": 1})
    with pytest.raises(InputError, match=r"`data.answer_sampling`: .*top_q"):
        exported(run, tmp_path / "export")
    assert not [*tmp_path.glob("*export*")]
