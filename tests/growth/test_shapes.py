"""The shapes of rows that other tools write."""

import json
import warnings

import pytest

from isara_pl.errors import InputError
from isara_pl.growth.samples import read_preferences, read_questions, read_samples

GOOD = '{"question": "Why?", "answer": "So."}\n'


def write(folder, *rows):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refused(path, read=read_samples) -> str:
    with pytest.raises(InputError) as error:
        read(path)
    return str(error.value).removeprefix(f"{path}:")


def said(read, path) -> tuple[list, list[str]]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        samples = read(path)
    return samples, [str(one.message).removeprefix(f"{path}: ") for one in heard]


def openai(*turns, **more) -> list[dict]:
    """Give turns that begin with the first letter of their role, in OpenAI's form."""
    roles = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[turn[0]], "content": turn, **more} for turn in turns]


def sharegpt(*turns) -> list[dict]:
    """Give such turns in ShareGPT's form."""
    roles = {"s": "system", "u": "human", "a": "gpt", "t": "observation"}
    return [{"from": roles[turn[0]], "value": turn} for turn in turns]


PARTS = [{"type": "text", "text": "Why"}, {"type": "text", "text": "so?"}]


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        (
            {"instruction": "Sum up.", "context": "A text.", "response": "So.", "category": "x"},
            "Sum up.\nA text.",
            "So.",
        ),
        ({"instruction": "Why?", "context": "", "response": "So."}, "Why?", "So."),
        ({"instruction": "Add.", "input": "1", "context": "2", "output": "3"}, "Add.\n1\n2", "3"),
        ({"prompt": "Why?", "response": "So."}, "Why?", "So."),
        ({"question": "Why?", "response": "So."}, "Why?", "So."),
        ({"conversations": sharegpt("u", "a")}, "u", "a"),
        ({"conversations": openai("u", "a")}, "u", "a"),
        ({"conversation": openai("u", "a")}, "u", "a"),
        ({"conversations": [{"from": "user", "value": "u"}, {"from": "assistant", "value": "a"}]}, "u", "a"),
        ({"messages": [{"role": "User", "content": "u"}, {"role": "ASSISTANT", "content": "a"}]}, "u", "a"),
        ({"messages": openai("u", content=PARTS) + openai("a")}, "Why\nso?", "a"),
        ({"messages": openai("u", "a", name="Ann")}, "u", "a"),
        ({"prompt": openai("u"), "completion": openai("a")}, "u", "a"),
        ({"prompt": openai("u"), "completion": "a"}, "u", "a"),
        ({"prompt": "u", "completion": openai("a")}, "u", "a"),
        ({"Question": "Why?", "ANSWER": "So."}, "Why?", "So."),
        ({"Question ": "Why?", "Best Answer": "So."}, "Why?", "So."),
        ({"question": "Why?", "answer": "So.", "messages": None, "prompt": None}, "Why?", "So."),
        ({"messages": [], "question": "", "prompt": "Why?", "completion": "So."}, "Why?", "So."),
        ({"question": "Why?", "best_answer": None, "answer": "So."}, "Why?", "So."),
    ],
)
def test_what_other_tools_write_is_read(tmp_path, row, question, answer):
    path = write(tmp_path, row)
    (samples, heard), (questions, _) = said(read_samples, path), said(read_questions, path)
    assert [(sample.question, sample.answer) for sample in samples] == [(question, answer)]
    assert [sample.question for sample in questions] == [question]
    assert heard == [], "nothing is left out"


@pytest.mark.parametrize(
    ("row", "question", "answer", "left_out"),
    [
        (
            {"conversations": sharegpt("s", "u1", "a1", "u2", "a2")},
            "u1",
            "a1",
            ["system text", "turns after the answer"],
        ),
        ({"conversations": sharegpt("a0", "u1", "a1")}, "u1", "a1", ["turns before the question"]),
        ({"system": "Be brief.", "conversations": sharegpt("u", "a")}, "u", "a", ["`system`"]),
        # of TRL's form it is the completion that is learned
        (
            {"prompt": openai("u1", "a1", "u2"), "completion": openai("a2")},
            "u2",
            "a2",
            ["turns before the question"],
        ),
        ({"prompt": openai("s", "u1", "u2"), "completion": openai("a")}, "u1\nu2", "a", ["system text"]),
        ({"prompt": openai("u"), "completion": openai("a1", "u2", "a2")}, "u", "a1", ["turns after the answer"]),
        # OpenAI's fine-tuning does not learn an answer of weight 0
        (
            {"messages": [*openai("u1"), *openai("a1", weight=0), *openai("u2"), *openai("a2", weight=1)]},
            "u2",
            "a2",
            ["turns before the question"],
        ),
    ],
)
def test_what_stands_beside_the_pair_is_said(tmp_path, row, question, answer, left_out):
    samples, heard = said(read_samples, write(tmp_path, row))
    assert [(sample.question, sample.answer) for sample in samples] == [(question, answer)]
    kinds = ", ".join(f"{kind} in 1" for kind in left_out)
    assert heard == [
        f"left out of questions and answers, of 1 rows: {kinds}. Where answers rest on it, write it into the questions"
    ]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": []}, "`messages` has no turn of role 'user'"),
        ({"conversations": sharegpt("s", "a")}, "`conversations` has no turn of role 'user'"),
        (
            {"conversations": sharegpt("u", "t", "a")},
            "`conversations` has a turn of role 'observation' before the answer",
        ),
        ({"conversations": "u"}, "`conversations` must be a list of objects with `role` and `content`, or `from` and"),
        ({"conversations": sharegpt("u")}, "`conversations` has no turn of role 'assistant' after the user's"),
        (
            {"messages": openai("u", "a", weight=0)},
            "no turn of role 'user' that is answered with a weight other than 0",
        ),
        (
            {"prompt": openai("u", "a"), "completion": openai("a")},
            "`prompt` has no turn of role 'user' right before the",
        ),
        ({"prompt": [], "completion": openai("a")}, "`prompt` has no turn of role 'user' right before the answer"),
        ({"prompt": openai("u"), "completion": []}, "`prompt` has no turn of role 'assistant' after the user's"),
        (
            {"prompt": openai("t", "u"), "completion": openai("a")},
            "`prompt` has a turn of role 'tool' before the answer",
        ),
        ({"messages": openai("u") + openai("a", content=None)}, "the field `content` is missing"),
        (
            {"messages": openai("u", content=[*PARTS, {"type": "image_url", "image_url": {}}]) + openai("a")},
            "the field `content` holds a part of type 'image_url', which is no text; remove the row",
        ),
        ({"messages": openai("u", content=["Why?"]) + openai("a")}, "the field `content` must be text, found list"),
        ({"instruction": "Why?", "context": 3, "response": "So."}, "the field `context` must be text, found int"),
        ({"instruction": "Why?", "response": ""}, "the field `response` is empty; fill it, or remove the row"),
        ({"question": "Why?", "answer": None}, "the field `answer` is missing"),
        ({"question": "Why?", "completion": "So."}, "the field `answer` is missing"),
        ({"text": "Why?"}, "no question field among 'text'; expected question/answer, "),
    ],
)
def test_a_row_of_which_no_pair_can_be_told_is_refused(tmp_path, row, what):
    path = write(tmp_path, json.loads(GOOD), row)
    message = refused(path)
    assert message.startswith("2: ")
    assert what in message


@pytest.mark.parametrize(
    ("category", "text"),
    [
        (0, "0"),
        (7, "7"),
        (1.5, "1.5"),
        (False, "False"),
        ("", None),
        (None, None),
        (["a", "b"], "a, b"),
        ([], None),
        ({"animal_abuse": False, "privacy_violation": True, "theft": True}, "privacy_violation, theft"),
        ({"animal_abuse": False}, None),
    ],
)
def test_a_category_that_is_no_text_is_read_as_one(tmp_path, category, text):
    path = write(tmp_path, {"question": "Why?", "answer": "So.", "chosen": "a", "rejected": "b", "category": category})
    for read in (read_samples, read_questions, lambda path: read_preferences(path, "pair")):
        assert read(path)[0].category == text


@pytest.mark.parametrize("category", [{"a": 1}, [["a"]], [{}]])
def test_a_category_of_another_kind_is_refused(tmp_path, category):
    path = write(tmp_path, {"question": "Why?", "answer": "So.", "category": category})
    assert refused(path).startswith("1: the field `category` must be text, a number, a list of them, or names")


def test_null_columns_and_blank_rows_of_json(tmp_path):
    row = {"question": "Why?", "answer": "So.", "category": None, "messages": None, "correct_answers": None}
    samples, heard = said(read_samples, write(tmp_path, row, dict.fromkeys(row), row))
    assert [(sample.question, sample.answer, sample.id) for sample in samples] == [
        ("Why?", "So.", "seed-00000"),
        ("Why?", "So.", "seed-00001"),
    ]
    assert heard == [f"blank rows were left out, 1 in all, the first at {tmp_path / 'a.jsonl'}:2"]


@pytest.mark.parametrize("row", [{"question": ""}, {"question": " ", "answer": ""}, {"messages": []}])
def test_a_row_of_json_with_empty_texts_is_a_fault_not_a_blank_row(tmp_path, row):
    message = refused(write(tmp_path, json.loads(GOOD), row))
    assert message.startswith("2: ")
    assert "`question` is empty" in message or "`messages` has no turn of role 'user'" in message


# -- preferences


@pytest.mark.parametrize(
    "row",
    [
        {"question": "u", "harmless": "a", "harmful": "bad"},
        {"Prompt": "u", "Chosen": "a", "Rejected": "bad"},
        {"prompt": "u", "chosen": openai("a"), "rejected": "bad"},
        {"prompt": openai("u"), "chosen": openai("a"), "rejected": "bad"},
        {"prompt": "u", "chosen": openai("u", "a"), "rejected": openai("u") + openai("a", content="bad")},
        {"chosen": openai("u", "a"), "rejected": openai("u") + openai("a", content="bad")},
        {"chosen": sharegpt("u", "a"), "rejected": [*sharegpt("u"), {"from": "gpt", "value": "bad"}]},
        {"conversations": sharegpt("u"), "chosen": sharegpt("a"), "rejected": "bad"},
    ],
)
def test_preferences_in_the_forms_of_other_tools(tmp_path, row):
    (sample,) = read_preferences(write(tmp_path, row), "pair")
    assert (sample.question, sample.answer, sample.incorrect_answers) == ("u", "a", ("bad",))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (
            {"chosen": openai("u1", "a"), "rejected": openai("u2", "a2")},
            "the fields `chosen` and `rejected` answer different questions",
        ),
        ({"chosen": openai("u", "a"), "rejected": openai("u", "a")}, "hold the same text"),
        ({"chosen": "Human: u Assistant: a", "rejected": "b"}, "no question field among 'chosen', 'rejected'"),
        (
            {"prompt": "u", "chosen": openai("a", "u2"), "rejected": "b"},
            "`chosen` has no turn of role 'user' right before",
        ),
        ({"prompt": "u", "chosen": openai("u"), "rejected": "b"}, "`chosen` has a turn of role 'user' in the answer's"),
        ({"prompt": "u", "chosen": "a"}, "the field `rejected` is missing"),
        ({"prompt": "u", "completion": "a"}, "no pair of answers among 'completion', 'prompt'"),
    ],
)
def test_preferences_that_cannot_be_told_are_refused(tmp_path, row, what):
    message = refused(write(tmp_path, row), lambda path: read_preferences(path, "pair"))
    assert message.startswith("1: ")
    assert what in message
