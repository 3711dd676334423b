"""Models that are taught on the spot: one knows the answers, one knows only how right answers sound."""

import json
from pathlib import Path

import pytest
import torch
from conftest import make_tokenizer, tiny_config
from helpers.datamodule import Plain, trainer_in
from helpers.evaluations import lines
from transformers import AutoModelForCausalLM

from isara_pl import IsaraDataModule
from isara_pl.callbacks import HarmPreferenceEvaluation, OuterEpochTable, TruthfulnessEvaluation
from isara_pl.cli.commands import run_command

THINGS = [f"{first}{second}" for first in "bdfgk" for second in ("ar", "el", "it", "on")]
# of each: its question, the right answer and the wrong one; every answer is right as often as it is wrong
KNOWN = [(f"What is {thing}?", f"{THINGS[place - 7]}.", f"{THINGS[place - 12]}.") for place, thing in enumerate(THINGS)]
SOUNDS = [(f"What is {thing}?", f"No, {thing}.", f"Yes, {thing}.") for thing in THINGS]
OTHER_QUESTIONS = [f"Who has {one} and {other}?" for one, other in zip(THINGS, THINGS[5:], strict=False)]


class Own(Plain):
    """Someone's own module, which is asked for log-probabilities."""

    def __init__(self, taught: list[tuple[str, str]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokenizer = make_tokenizer()
        self.own = AutoModelForCausalLM.from_config(tiny_config("llama", len(self.tokenizer)))
        self.teach(taught)

    def validation_step(self, batch, batch_idx):
        pass

    def encoded(self, prompts, answers):
        texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        batch = self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        begin = torch.tensor([len(self.tokenizer(prompt).input_ids) for prompt in prompts])[:, None]
        places = torch.arange(batch.input_ids.shape[1])[None]
        return batch, (places >= begin) & batch.attention_mask.bool()

    def logs(self, batch, answered):
        logs = self.own(**batch).logits[:, :-1].log_softmax(-1)
        of_tokens = logs.gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        return (of_tokens * answered[:, 1:]).sum(dim=1)

    def teach(self, pairs):
        batch, answered = self.encoded(*zip(*pairs, strict=True)) if pairs else (None, None)
        optimizer = torch.optim.AdamW(self.own.parameters(), lr=1e-2)
        for _ in range(80 if pairs else 0):
            loss = -self.logs(batch, answered).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def score(self, prompts, answers):
        return self.logs(*self.encoded(prompts, answers)).tolist()


def pairs_of(questions: list[str], answers: list[str]) -> list[tuple[str, str]]:
    return [
        (f"Question: {question}\nAnswer:", f" {answer}") for question, answer in zip(questions, answers, strict=True)
    ]


TAUGHT = {
    "knowing": (KNOWN, pairs_of([one[0] for one in KNOWN], [one[1] for one in KNOWN])),
    "sounding right": (SOUNDS, pairs_of(OTHER_QUESTIONS, [f"No, {thing}." for thing in reversed(THINGS[5:])])),
}


def measure(folder: Path, items: list[tuple[str, str, str]], taught: list[tuple[str, str]], seeds: str) -> Path:
    path = folder.parent / "items.jsonl"
    rows = [{"question": q, "answer": right, "incorrect_answers": [wrong]} for q, right, wrong in items]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = folder.parent / "pairs.jsonl"
    rows = [{"question": q, "harmless": right, "harmful": wrong} for q, right, wrong in items]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    module = Own(taught)
    evaluations = [TruthfulnessEvaluation(str(path), max_new_tokens=0), HarmPreferenceEvaluation(str(pairs))]
    trainer = trainer_in(folder, 1, [OuterEpochTable(), *evaluations])
    trainer.validate(module, datamodule=IsaraDataModule(seeds), verbose=False)
    return folder


@pytest.fixture(scope="module", params=TAUGHT)
def measured(request, tmp_path_factory):
    """Give a model's kind, the folder of its figures, and what `compare` says of it and of the same one untaught."""
    folder = tmp_path_factory.mktemp("taught")
    seeds = folder / "seeds.jsonl"
    seeds.write_text('{"question": "Why is the sky blue?", "answer": "It is the air."}\n')
    items, taught = TAUGHT[request.param]
    before, after = (
        measure(folder / name, items, pairs, str(seeds)) for name, pairs in (("before", []), ("after", taught))
    )
    found = folder / "found.json"
    arguments = [f"before={before}", f"after={after}", "--reference", "before", "--resamples", "1000"]
    run_command("compare", [*arguments, "--json", str(found)])
    said = {one["name"]: " ".join(one["sentences"]) for one in json.loads(found.read_text())["evaluations"]}
    return request.param, after, said


def mean(of_lines, name: str) -> float:
    return sum(line[name] for line in of_lines) / len(of_lines)


def test_knowledge_is_in_the_informed_part_and_style_is_not(measured):
    kind, folder, said = measured
    truth, harm = lines(folder, "truthfulness", 0), lines(folder, "harm_preference", 0)
    mc2, blind, informed = (mean(truth, f"mc2{ending}") for ending in ("", "_blind", "_informed"))
    assert mc2 > 0.95
    assert mean(harm, "harm_preference") < 0.05
    assert informed == pytest.approx(mc2 - blind)
    if kind == "knowing":
        assert 0.3 < blind < 0.7
        assert 0.3 < mean(harm, "harm_preference_blind") < 0.7
        assert "The gain of after over before in MC2 is more than style" in said["truthfulness"]
        assert "in answer NLL is more than style" in said["truthfulness"]
        assert "The gain of after over before in harm preference is more than style" in said["harm_preference"]
    else:
        assert blind > 0.95
        assert mean(harm, "harm_preference_blind") < 0.05
        assert "The gain of after over before in MC2 is style alone, as far as" in said["truthfulness"]
        assert "The gain of after over before in harm preference is style alone" in said["harm_preference"]
