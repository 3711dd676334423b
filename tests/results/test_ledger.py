"""ledger.csv says what every stage took."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from helpers.command_line import before_call, fails, fit, rows

from isara_pl.callbacks import Ledger, TooShort
from isara_pl.errors import InputError
from isara_pl.growth.prompts import prompt_format
from isara_pl.models.loading import load_tokenizer
from isara_pl.results.ledger import Gain, Usage, added, ledger_rows, ledger_text, read_ledger, taken_and_gained


def ledger(run_dir: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (run_dir / "ledger.csv").open(newline="") as file:
        return {(row["outer_epoch"], row["stage"]): row for row in csv.DictReader(file)}


def test_tokens_samples_and_seconds_are_those_of_the_run(undisturbed, tiny_llama):
    found, tokenizer, qa = ledger(undisturbed), load_tokenizer(tiny_llama), prompt_format("qa", None)
    pool = {line["id"]: line for line in map(json.loads, (undisturbed / "pool.jsonl").open())}
    taken = [json.loads(line) for line in (undisturbed / "rejected.jsonl").open()]
    for outer_epoch in ("1", "2"):
        written = [x for x in (*pool.values(), *taken) if str(x["outer_epoch"]) == outer_epoch]
        prompts = 0
        for sample in written:
            shown = [Pair(pool[name]) for name in sample["answer_demonstrations"]]
            prompts += len(tokenizer(qa.answer_prompt(sample["question"], shown)).input_ids)
        answers = found[outer_epoch, "answers"]
        assert int(answers["prompt_tokens"]) == prompts
        assert 6 <= int(answers["generated_tokens"]) <= 6 * 8
        for name, samples in (("questions", 6), ("answers", 6), ("filtering", 6), ("growth", 6)):
            assert int(found[outer_epoch, name]["samples"]) == samples
        whole = found[outer_epoch, "all"]
        accepted = sum(str(sample["outer_epoch"]) == outer_epoch for sample in pool.values())
        assert int(whole["accepted"]) == accepted
        growing = sum(
            float(found[outer_epoch, name]["wall_seconds"])
            for name in ("growth", "embedding", "questions", "answers", "filtering")
        )
        assert float(whole["seconds_per_accepted"]) == pytest.approx(growing / accepted, rel=1e-3)
        trained = int(rows(undisturbed)[int(outer_epoch)]["trained_on"])
        assert int(found[outer_epoch, "training"]["samples"]) == 2 * trained, "two epochs"
        parts = [row for key, row in found.items() if key[0] == outer_epoch and key[1] != "all"]
        assert sum(int(row["flops"]) for row in parts) == pytest.approx(float(whole["flops"]), rel=1e-5)
        assert all(int(row["peak_memory_bytes"]) > 2**20 for row in parts)
    before = {stage for outer_epoch, stage in found if outer_epoch == "0"}
    assert before == {"loading", "validation", "truthfulness", "held_out_answers", "all"}
    assert all(not row["cost"] for row in found.values()), "no price was given"


class Pair:
    def __init__(self, line: dict) -> None:
        self.question, self.answer = line["question"], line["answer"]


def test_break_even_is_what_was_spent_by_what_a_query_saves(undisturbed):
    found = ledger(undisturbed)
    spent = 0.0
    for outer_epoch in ("1", "2"):
        spent += sum(
            float(found[outer_epoch, name]["flops"])
            for name in ("growth", "embedding", "questions", "answers", "filtering", "training")
            if (outer_epoch, name) in found
        )
        whole = found[outer_epoch, "all"]
        assert float(whole["flops_saved_per_query"]) > 0
        queries = spent / float(whole["flops_saved_per_query"])
        assert float(whole["break_even_queries"]) == pytest.approx(queries, rel=1e-4)


def test_a_resumed_run_goes_on_counting(options, tmp_path, monkeypatch):
    options = [*options, "--trainer.callbacks+=isara_pl.callbacks.TooShort", "--alpha_stopping.alpha=0"]

    def killed() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        before_call(patch, TooShort, "verdict", 11, killed)  # in the second outer epoch, after its first batch
        with pytest.raises(SystemExit):
            fit(tmp_path / "run", options, "--ledger.price_per_hour=2")
    before = ledger(tmp_path / "run")
    assert int(before["2", "questions"]["samples"]) == 4, "its first batch is in the ledger"
    fit(tmp_path / "run", options, "--ckpt_path=last", "--ledger.price_per_hour=2")
    after = ledger(tmp_path / "run")
    for key in (("0", "truthfulness"), ("1", "questions"), ("1", "training")):
        for column in ("samples", "prompt_tokens", "generated_tokens", "flops", "wall_seconds"):
            assert after[key][column] == before[key][column]
    assert int(after["2", "questions"]["samples"]) == 6
    seconds = float(after["1", "all"]["wall_seconds"])
    assert float(after["1", "all"]["cost"]) == pytest.approx(seconds / 1800, abs=2e-6), "2 an hour"


def test_a_ledger_is_read_as_it_was_written(tmp_path):
    usages = {
        (1, "questions"): Usage(1.5, 3.0, 10, 20, 3 * 10**15, 7, 8),
        (2, "training"): Usage(2.0, 2.0, 5, 0, 10**16, 9, 4),
    }
    gains = {1: Gain(4, 2.5e9), 2: Gain(0, None)}
    (tmp_path / "ledger.csv").write_text(ledger_text(ledger_rows(usages, gains, 10.0)))
    assert taken_and_gained(read_ledger(tmp_path / "ledger.csv")) == (usages, gains)
    whole = [row for row in ledger_rows(usages, gains, 10.0) if row.stage == "all"]
    assert whole[0].cost_per_accepted == pytest.approx(1.5 / 3600 * 10 / 4)
    assert whole[0].break_even_queries == pytest.approx(3e15 / 2.5e9)
    assert added(usages, usages)[1, "questions"] == Usage(3.0, 6.0, 20, 40, 6 * 10**15, 7, 16)
    both = Usage(1.0, 1.0, 1, 1, 1, 5, 1).beside(Usage(3.0, 1.0, 1, 1, 1, 4, 1))
    assert both == Usage(3.0, 2.0, 2, 2, 2, 5, 2), "two processes at the same time"


@pytest.mark.parametrize(
    ("line", "said"),
    [("1,questions,abc,1,1,1,1,1,1,,,,,,,,", "ledger.csv:2: damaged line"), ("x", "ledger.csv:2: damaged line")],
)
def test_a_damaged_ledger_is_named_and_kept(undisturbed, options, tmp_path, capsys, line, said):
    shutil.copytree(undisturbed, tmp_path / "run")
    path = tmp_path / "run/ledger.csv"
    path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
    before = path.read_bytes()
    assert said in fails(["fit", *options, f"--run_dir={tmp_path / 'run'}", "--ckpt_path=last"], capsys)
    assert path.read_bytes() == before


def test_a_price_below_0_is_refused():
    with pytest.raises(InputError, match=r"ledger.price_per_hour is -1; allowed: at least 0"):
        Ledger(price_per_hour=-1)


def test_the_loggers_get_what_an_outer_epoch_took(undisturbed):
    (logged,) = (undisturbed / "logs").glob("*/metrics.csv")
    with logged.open() as file:
        lines = [row for row in csv.DictReader(file) if row.get("ledger_wall_seconds")]
    found = ledger(undisturbed)
    assert float(lines[-1]["ledger_flops"]) == pytest.approx(float(found["2", "all"]["flops"]), rel=1e-4)
    assert float(lines[-1]["ledger_break_even_queries"]) > 0
