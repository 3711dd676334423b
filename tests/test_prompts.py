import pytest
from conftest import make_tokenizer

from isara_pl.errors import InputError
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample

PAIRS = [Sample("a", "Why so?", "Because\nit is."), Sample("b", "And  who?", "Me.")]


def test_qa_prompts_hold_pairs_and_an_open_turn_and_no_instruction():
    form = prompt_format("qa", None)
    context = "Question: Why so?\nAnswer: Because it is.\n\nQuestion: And who?\nAnswer: Me.\n\n"
    assert form.question_prompt(PAIRS) == context + "Question:"
    assert form.answer_prompt("Where?", PAIRS) == context + "Question: Where?\nAnswer:"
    assert form.answer_prompt("Where?") + form.answer_text("Here.") == "Question: Where?\nAnswer: Here."


def test_safe_rlhf_prompt_is_the_classifiers_own_up_to_the_answer():
    form = prompt_format("safe-rlhf", None)
    assert form.answer_prompt("Where?") == "BEGINNING OF CONVERSATION: USER: Where? ASSISTANT:"
    assert form.parse_question(" Where to go? ASSISTANT: There.\nmore") == "Where to go?"


def test_plain_completions_end_at_the_newline():
    form = prompt_format("qa", None)
    assert form.single_line
    assert form.parse_question(" Who is it?\nAnswer: Me") == "Who is it?"
    assert form.parse_question(" Who is it? Answer: Me") == "Who is it?"
    assert form.parse_answer(" It is me.\nQuestion: x") == "It is me."


def test_chat_prompts_are_turns_of_the_templates():
    form = prompt_format("chat", make_tokenizer())
    turns = "<|turn|>user\nWhy so?<|end|>\n<|turn|>assistant\nBecause\nit is.<|end|>\n"
    assert form.question_prompt(PAIRS[:1]) == turns + "<|turn|>user\n"
    assert form.answer_prompt("Where?", PAIRS[:1]) == turns + "<|turn|>user\nWhere?<|end|>\n<|turn|>assistant\n"
    assert not form.single_line
    assert form.parse_answer(" two\nlines ") == "two\nlines"


def test_chat_without_a_template_or_tokenizer_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        prompt_format("chat", tokenizer)
    with pytest.raises(InputError, match=r"data\.tokenizer"):
        prompt_format("chat", None)
