"""The main job with the real SmolLM2 and MiniLM, in small."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers.real import SMOLLM2
from peft import PeftModel

from isara_pl.cli.main import main
from isara_pl.models.loading import load_causal_lm, load_tokenizer

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.real
def test_the_quickstart_in_small_writes_questions_and_trains_an_adapter_that_answers(tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    with (ROOT / "isara_pl/quickstart/seeds.jsonl").open(encoding="utf-8") as file:
        seeds.write_text("".join(islice(file, 16)), encoding="utf-8")
    run_dir = tmp_path / "run"
    main([
        "fit", f"--config={ROOT / 'configs/quickstart.yaml'}", f"--run_dir={run_dir}", f"--data.seeds={seeds}",
        "--data.held_out=null", "--data.candidates_per_outer_epoch=8", "--data.outer_epochs=1",
    ])  # fmt: skip
    pool = [json.loads(line) for line in (run_dir / "pool.jsonl").read_text(encoding="utf-8").splitlines()]
    rejected = (run_dir / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    grown = pool[16:]
    assert len(grown) + len(rejected) == 8
    assert len(grown) >= 3, "a real model writes some new pairs"
    assert sum(sample["question"].endswith("?") for sample in grown) > len(grown) / 2
    assert all(len(sample["answer_demonstrations"]) == 5 for sample in grown)

    tokenizer, pair = load_tokenizer(SMOLLM2), pool[0]
    prompt = tokenizer(f"Question: {pair['question']}\nAnswer:").input_ids
    ids = torch.tensor([prompt + tokenizer(f" {pair['answer']}").input_ids])

    def answer_nll(model: torch.nn.Module) -> float:
        with torch.no_grad():
            logs = model.eval()(input_ids=ids).logits[0].log_softmax(-1)
        return -sum(logs[i - 1, ids[0, i]].item() for i in range(len(prompt), ids.shape[1]))

    base = load_causal_lm(SMOLLM2)
    untrained = answer_nll(base)
    assert answer_nll(PeftModel.from_pretrained(base, run_dir / "adapter")) < untrained
