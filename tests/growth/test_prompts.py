import pytest
from conftest import make_tokenizer

from isara_pl.errors import InputError
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample
from isara_pl.training.pairs import encode_pair

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


LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' <|end|>' }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{% for m in messages %}{{ '<start>' + m['role'] + '\\n' + m['content'] + '<|turn|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start>assistant\\n' }}{% endif %}"
)


def test_chat_templates_whose_user_turn_has_an_end_of_its_own():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = LLAMA2
    form = prompt_format("chat", tokenizer)
    assert form.answer_prompt("Where?") + form.answer_text("Here.") == "[INST] Where? [/INST] Here."
    assert form.parse_question("Where? [/INST] Here. <|end|>") == "Where?"
    assert form.question_prompt(PAIRS[1:]) == "[INST] And  who? [/INST] Me. <|end|>[INST] "


def test_the_end_of_turn_that_is_trained_is_the_templates_own():
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = GEMMA
    pair = encode_pair(PAIRS[1], prompt_format("chat", tokenizer), tokenizer, 200, end=True)
    assert tokenizer.decode(pair.input_ids).endswith("Me.<|turn|>")
    assert prompt_format("chat", tokenizer).parse_answer("Me.<|turn|>\n<start>user") == "Me."


def test_an_answer_of_several_lines_is_trained_on_one_line_in_plain_formats():
    assert prompt_format("qa", None).answer_text("one\ntwo") == " one two"


def test_chat_without_a_template_or_tokenizer_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        prompt_format("chat", tokenizer)
    with pytest.raises(InputError, match=r"data\.tokenizer"):
        prompt_format("chat", None)
