"""Chat templates that write something before an answer, and templates that write today's date."""

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest
import torch
import transformers.utils.chat_template_utils as renderer
from conftest import CHAT_TEMPLATE, FakeGenerator, make_model, make_seeds, make_tokenizer
from helpers.command_line import UNMEASURED, adapter, fails, fit, rows
from helpers.judges import save_classifier
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from isara_pl.cli.main import main
from isara_pl.errors import InputError
from isara_pl.evaluation.judges import GuardModelJudge, RewardModelJudge
from isara_pl.generation.protocol import Completion
from isara_pl.growth.prompts import notes, prompt_format
from isara_pl.growth.samples import Sample
from isara_pl.module import IsaraModule
from isara_pl.run.trainer import ALONE
from isara_pl.training.loaders import held_out_loader, question_loader
from isara_pl.training.pairs import PairEncoder, encode_pair

OPENED = "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
# a block in the last turn alone, thoughts of earlier turns left out, as Qwen3
LAST_TURN = (
    "{% for m in messages %}{% set text = m.content %}{% set thought = '' %}"
    "{% if m.role == 'assistant' and '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set text = text.split('</think>')[-1].lstrip() %}{% endif %}{{ '<|turn|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}"
    "{{ text + '<|end|>\n' }}{% endfor %}" + OPENED
)


def before_each_answer(text: str, opened: str = OPENED) -> str:
    """Give a template that writes a text before every answer."""
    return (
        "{% for m in messages %}{{ '<|turn|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{{ '"
        + text
        + "' }}{% endif %}{{ m.content + '<|end|>\n' }}{% endfor %}"
        + opened
    )


BLOCK = "<think>\n\n</think>\n\n"
# template, what stands between an opened turn of the assistant and an answer's text, whether it is a block
TEMPLATES = {
    "last turn": (LAST_TURN, BLOCK, True),
    "every turn": (before_each_answer(BLOCK), BLOCK, True),
    "in a line, another name": (before_each_answer("<seed:cot></seed:cot>"), "<seed:cot></seed:cot>", True),
    "a space behind": (before_each_answer("<think></think> "), "<think></think> ", True),
    "opened by the generation prompt": (
        before_each_answer(BLOCK, OPENED.replace("\n' }}", "\n<think>\n' }}")),
        BLOCK,
        True,
    ),
    "closed by the generation prompt": (
        before_each_answer(BLOCK, OPENED.replace("\n' }}", "\n" + BLOCK + "' }}")),
        BLOCK,
        True,
    ),
    "a channel": (before_each_answer("<|channel|>final<|message|>"), "<|channel|>final<|message|>", False),
    "a newline": (before_each_answer("\n"), "\n", False),
    "nothing": (CHAT_TEMPLATE, "", False),
    "a space": (before_each_answer(" "), " ", False),
}
PAIR, EARLIER = Sample("a", "Why so?", "Because it is."), Sample("b", "And who?", "Me.")
kinds = pytest.mark.parametrize("kind", TEMPLATES)
kinds_with_block = pytest.mark.parametrize("kind", [kind for kind, (*_, block) in TEMPLATES.items() if block])


def tokenizer_of(template: str) -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def in_full(tokenizer: PreTrainedTokenizerFast, *pairs: Sample) -> str:
    """Render a conversation by the template itself."""
    turns = [turn for pair in pairs for turn in (("user", pair.question), ("assistant", pair.answer))]
    said = [{"role": role, "content": content} for role, content in turns]
    return tokenizer.apply_chat_template(said, tokenize=False)


def with_blocks(kind: str, answer: str) -> list[str]:
    tag = "seed:cot" if "another name" in kind else "think"
    return [
        f"<{tag}>{thought}</{tag}>{gap}{answer}" for thought in ("\n\n", "\nHm.\n", "") for gap in ("\n\n", "", " ")
    ]


# -- what the template writes before an answer is prompt


@kinds
def test_what_a_template_writes_before_an_answer_is_prompt_and_not_learned(kind):
    template, before, _ = TEMPLATES[kind]
    tokenizer = tokenizer_of(template)
    form, opened = prompt_format("chat", tokenizer), "<|turn|>user\nWhy so?<|end|>\n<|turn|>assistant\n"
    assert form.answer_prompt("Why so?") == opened + before.rstrip(" ")
    for shown in ([], [EARLIER], [EARLIER, EARLIER]):
        whole = form.answer_prompt("Why so?", shown) + form.answer_text("Because it is.") + form.ending
        assert whole == in_full(tokenizer, *shown, PAIR)
    pair = encode_pair(PAIR, form, tokenizer, 200, end=True)
    assert tokenizer.decode(pair.input_ids[: pair.prompt_length]) == opened + before.rstrip(" ")
    space = before[len(before.rstrip(" ")) :]
    assert tokenizer.decode(pair.input_ids[pair.prompt_length :]) == space + "Because it is.<|end|>"


@kinds
def test_the_tokens_that_are_measured_are_those_of_the_answer(kind, tiny_llama):
    tokenizer, model = tokenizer_of(TEMPLATES[kind][0]), AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    module = IsaraModule(tiny_llama)
    module.configure_model()
    pairs = make_seeds(3)
    encoder = PairEncoder(prompt_format("chat", tokenizer), tokenizer, 500)
    (batch,) = held_out_loader([encoder(pair, end=False) for pair in pairs], 8, ALONE, encoder.pad_token_id)
    logged = []
    module.log = lambda name, metric, **_: logged.append(float(metric.compute()))
    module._trainer = type("Trainer", (), {"precision_plugin": None})()
    with torch.no_grad():
        module.validation_step(batch, 0)
    sums, tokens = 0.0, 0
    for pair in pairs:
        text, _, _ = in_full(tokenizer, pair).rpartition(pair.answer)
        prompt, answer = (
            tokenizer(part).input_ids for part in (text.rstrip(" "), text[len(text.rstrip(" ")) :] + pair.answer)
        )
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        sums += float(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        tokens += len(answer)
    assert int((batch["labels"] != -100).sum()) == tokens
    assert logged == [pytest.approx(sums / tokens, rel=1e-4)]


@kinds_with_block
def test_an_answer_that_holds_a_block_is_learned_with_one_and_shown_with_one(kind):
    tokenizer = tokenizer_of(TEMPLATES[kind][0])
    form = prompt_format("chat", tokenizer)
    expected = encode_pair(PAIR, form, tokenizer, 200, end=True)
    shown = form.answer_prompt("And?", [PAIR])
    for answer in [*with_blocks(kind, PAIR.answer), *with_blocks(kind, with_blocks(kind, PAIR.answer)[0])]:
        given = Sample(PAIR.id, PAIR.question, answer)
        assert encode_pair(given, form, tokenizer, 200, end=True) == expected, answer
        assert form.answer_prompt("And?", [given]) == shown
        assert form.question_prompt([given]) == form.question_prompt([PAIR])
    behind = "So <think>Hm.</think> it is."  # what is not at the beginning is part of the answer
    assert form.answer_text(behind).strip() == behind


@kinds_with_block
def test_what_was_written_is_read_without_a_block_before_it(kind):
    form = prompt_format("chat", tokenizer_of(TEMPLATES[kind][0]))
    for written in with_blocks(kind, "Because."):
        assert form.parse_answer(written) == "Because."
        assert form.parse_answer(f"\n {written}<|end|>\nmore") == "Because."
    tag = "seed:cot" if "another name" in kind else "think"
    for thought in (f"<{tag}>\nHm", f"<{tag}>Hm</{tag}>", f"<{tag}></{tag}>\n<{tag}>"):
        assert form.parse_answer(thought) == ""
    assert form.parse_answer("So <think>Hm.</think> it is.") == "So <think>Hm.</think> it is."
    # the question ends where the user's turn does, whatever the template writes before the answer
    assert form.parse_question("Why so?<|end|>\n<|turn|>assistant\n<think>\nBecause") == "Why so?"


@pytest.mark.parametrize("kind", ["nothing", "a space", "a channel"])
def test_where_the_template_writes_no_block_one_is_part_of_the_answer(kind):
    tokenizer = tokenizer_of(TEMPLATES[kind][0])
    form, answer = prompt_format("chat", tokenizer), "<think>\nHm.\n</think>\n\nBecause."
    assert form.parse_answer(answer) == answer == form.answer_text(answer).strip()
    assert answer in form.answer_prompt("And?", [Sample("a", "Why?", answer)])
    assert notes(form, "chat", [Sample("a", "Why?", answer)]) == []


@pytest.mark.parametrize("answer", ["<think>\nHm.\n</think>", "<think>\nBecause", "<think></think> <think>"])
def test_an_answer_that_is_only_a_block_is_refused(answer):
    tokenizer = tokenizer_of(LAST_TURN)
    with pytest.raises(InputError, match=r"the answer '<think>.*' is nothing but a <think> block"):
        encode_pair(Sample("a", "Why?", answer), prompt_format("chat", tokenizer), tokenizer, 200, end=True)


def test_seeds_whose_blocks_are_left_out_are_counted():
    form = prompt_format("chat", tokenizer_of(LAST_TURN))
    (note,) = notes(form, "chat", [PAIR, Sample("a", "Why?", "<think>\nHm.\n</think>\n\nSo.")])
    assert note.startswith("data.seeds: 1 of 2 answers begin with a <think> block, which is left out")
    assert notes(form, "chat", [PAIR]) == []


def test_a_template_that_opens_an_answer_otherwise_than_it_writes_one_is_refused():
    template = CHAT_TEMPLATE.replace("<|turn|>assistant\n", "<|turn|>assistant\n<think>\n")  # as DeepSeek-R1's
    with pytest.raises(InputError, match="opens an answer otherwise than it writes one"):
        prompt_format("chat", tokenizer_of(template))


def with_template(folder: str, template: str, place: Path) -> str:
    shutil.copytree(folder, place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(place)
    return str(place)


def test_pool_and_predictions_hold_answers_without_what_stands_before_them(options, tiny_llama, tmp_path, monkeypatch):
    asked = FakeGenerator()
    told = ["\n<think>\nHm.\n</think>\n\n", "<think>\n\n</think>\n\n", ""]

    def generate(self, prompts, sampling, seeds, top=None):
        completions = []
        for number, (prompt, given) in enumerate(zip(prompts, asked.generate(prompts, sampling, seeds), strict=True)):
            answers = prompt.endswith("<|turn|>assistant\n" + BLOCK)
            assert answers or prompt.endswith("<|turn|>user\n")
            thought = told[number % len(told)] if answers else ""
            completions.append(Completion(thought + given.text.strip(), True))
        return completions

    monkeypatch.setattr(IsaraModule, "generate", generate)
    more = (f"--model.name={with_template(tiny_llama, LAST_TURN, tmp_path / 'model')}", "--data.prompt_format=chat")
    run_dir = fit(tmp_path / "run", options, *more, "--data.outer_epochs=1")
    pool = [json.loads(line)["answer"] for line in (run_dir / "pool.jsonl").open()]
    assert len(pool) > len(make_seeds())
    (tmp_path / "questions.jsonl").write_text('{"question": "Why?"}\n' * 3)
    main(["predict", *options, *more, f"--run_dir={run_dir}", f"--data.questions={tmp_path / 'questions.jsonl'}"])
    predicted = [json.loads(line)["answer"] for line in (run_dir / "predictions.jsonl").open()]
    assert len(predicted) == 3
    assert all(answer.startswith("Yes, ") for answer in (*predicted, *pool[len(make_seeds()) :]))


def test_a_block_does_not_count_as_an_answer_of_predict_in_any_module():
    form = prompt_format("chat", tokenizer_of(LAST_TURN))
    (batch,) = question_loader([PAIR], form, 4, ALONE)
    assert batch["prompt"][0].endswith(BLOCK)
    assert batch["parse_answer"]("<think>\nHm.\n</think>\nSo.") == "So."


# -- every day is the same


DATED = {
    "called": "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}",
    "asked whether it is there": (
        '{% if strftime_now is defined %}{% set day = strftime_now("%d %b %Y") %}{% else %}{% set day = "no" %}'
        "{% endif %}{{ 'Today: ' + day + '\n' }}"
    ),
    "in parts": (
        "{{ 'Today: ' + strftime_now( '%d' ) + ' ' }}{% set year = strftime_now('%Y') | int %}"
        "{{ strftime_now(\"%b\") + ' ' + year | string + '\n' }}"
    ),
    "in a macro": "{% macro day() %}{{ strftime_now('%d %b %Y') }}{% endmacro %}{{ 'Today: ' + day() + '\n' }}",
}


def set_clock(patch: pytest.MonkeyPatch, day: int) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2031, 1, day)

    patch.setattr(renderer, "datetime", Clock)


@pytest.mark.parametrize("kind", DATED)
def test_a_prompt_does_not_depend_on_the_day(kind, monkeypatch):
    template = DATED[kind] + CHAT_TEMPLATE
    prompts = []
    for day in (1, 2):
        set_clock(monkeypatch, day)
        tokenizer = tokenizer_of(template)
        form = prompt_format("chat", tokenizer)
        assert f"{day:02} Jan 2031" in in_full(tokenizer, PAIR), "this clock is the template's own"
        prompts.append((form.answer_prompt("Why?", [PAIR]), form.question_prompt([PAIR])))
        assert tokenizer.chat_template == template, "what is exported with the model is as it was"
    assert prompts[0] == prompts[1]
    assert all(prompt.startswith("Today: 26 Jul 2024\n<|turn|>user\n") for prompt in prompts[0])
    (note,) = notes(form, "chat", [PAIR])
    assert "writes today's date, for which every prompt has 26 July 2024" in note


@pytest.mark.parametrize("kind", [RewardModelJudge, GuardModelJudge])
def test_what_a_judge_says_does_not_depend_on_the_day(kind, tmp_path, monkeypatch):
    make = (
        make_model if kind is GuardModelJudge else lambda folder: save_classifier(folder, "llama", labels=["LABEL_0"])
    )
    folder = with_template(make(tmp_path / "made"), DATED["called"] + CHAT_TEMPLATE, tmp_path / "judge")
    scores = []
    for day in (1, 2):
        set_clock(monkeypatch, day)
        scores.append(kind(folder).scores(["Why?"], ["So."]))
    assert torch.equal(*scores)


def test_a_run_goes_on_on_another_day_as_if_it_were_the_same(options, tiny_llama, tmp_path, monkeypatch):
    model = with_template(tiny_llama, DATED["called"] + CHAT_TEMPLATE, tmp_path / "model")
    more = [f"--model.name={model}", "--data.prompt_format=chat", "--data.epochs_per_outer_epoch=1"]
    more += ["--trainer.callbacks=[]", "--held_out_answers.questions=0", "--data.candidates_per_outer_epoch=2"]
    set_clock(monkeypatch, 1)
    whole = fit(tmp_path / "whole", options, *more)
    fit(tmp_path / "parts", options, *more, "--data.outer_epochs=1")
    set_clock(monkeypatch, 2)
    parts = fit(tmp_path / "parts", options, *more, "--ckpt_path=last")
    assert (parts / "pool.jsonl").read_bytes() == (whole / "pool.jsonl").read_bytes()
    assert adapter(parts) == adapter(whole)
    figures = [row["answer_nll"] for row in rows(whole)]
    main(["validate", *options, *more, f"--run_dir={whole}", "--ckpt_path=last"])
    assert [row["answer_nll"] for row in rows(whole)] == figures


def test_a_prompt_that_changed_nevertheless_is_refused(options, tiny_llama, tmp_path, monkeypatch, capsys):
    dated = "{% set form = '%d %b %Y' %}{{ 'Today: ' + strftime_now(form) + '\n' }}"  # is not found in the template
    more = (f"--model.name={with_template(tiny_llama, dated + CHAT_TEMPLATE, tmp_path / 'model')}",)
    seeds_alone = (
        "--data.candidates_per_outer_epoch=0",
        "--data.outer_epochs=1",
        "--data.prompt_format=chat",
        UNMEASURED,
    )
    set_clock(monkeypatch, 1)
    run_dir = fit(tmp_path / "run", options, *more, *seeds_alone)
    set_clock(monkeypatch, 2)
    error = fails(["fit", *options, *more, *seeds_alone, f"--run_dir={run_dir}", "--ckpt_path=last"], capsys)
    assert 'a pair in data.prompt_format: "Today: 01 Jan 2031' in error
    assert '"Today: 02 Jan 2031' in error
