import json
import warnings
from pathlib import Path

import pytest

from isara_pl.errors import InputError
from isara_pl.growth.samples import Sample, read_preferences, read_questions, read_samples


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"question": "Why?", "answer": "So."}, "Why?", "So."),
        ({"prompt": " Why? ", "completion": "So.\n"}, "Why?", "So."),
        ({"instruction": "Add.", "output": "3"}, "Add.", "3"),
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n1 2", "3"),
        ({"instruction": "Add.", "input": "", "output": "3"}, "Add.", "3"),
        ({"instruction": "Be brief.", "question": "Why?", "answer": "So."}, "Why?", "So."),
        ({"instruction": "Be brief.", "input": "x", "question": "Why?", "best_answer": "So."}, "Why?", "So."),
        ({"instruction": "Be brief.", "prompt": "Why?", "completion": "So."}, "Why?", "So."),
        (
            {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Why?"}]
             + [{"role": "assistant", "content": "So."}]},
            "Why?",
            "So.",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_every_field_convention_reads_to_the_same_pair(tmp_path, row, question, answer, ending):
    path = write(tmp_path, f"a.{ending}", json.dumps(row) + "\n" if ending == "jsonl" else json.dumps([row], indent=1))
    (sample,) = read_samples(path)
    assert (sample.question, sample.answer, sample.id, sample.outer_epoch) == (question, answer, "seed-00000", 0)


def test_csv_with_answer_lists_and_quoted_newlines(tmp_path):
    path = write(
        tmp_path,
        "a.csv",
        'Question,answer,category,correct_answers,incorrect_answers\n"Why,\nreally?",So.,x,So.; Yes. ,No.\nWho?,Me.,,,\n',
    )
    first, second = read_samples(path)
    assert first.question == "Why,\nreally?"
    assert first.correct_answers == ("So.", "Yes.")
    assert first.incorrect_answers == ("No.",)
    assert (second.category, second.correct_answers) == (None, ())


def test_byte_order_mark_blank_lines_and_unicode_line_separators(tmp_path):
    row = json.dumps({"question": "A\u2028B?", "answer": "Ü."}, ensure_ascii=False)
    path = write(tmp_path, "a.jsonl", f"\ufeff\n{row}\n\n")
    (sample,) = read_samples(path)
    assert sample.question == "A\u2028B?"


GOOD = '{"question": "Why?", "answer": "So."}\n'


@pytest.mark.parametrize(
    ("name", "content", "where", "what"),
    [
        ("a.jsonl", GOOD + '{"question": "Why?"\n', ":2:", "not JSON"),
        ("a.jsonl", GOOD + "\n" + '{"question": "Why?"}\n', ":3:", "`answer` is missing"),
        ("a.jsonl", GOOD + '{"question": "  ", "answer": "So."}\n', ":2:", "`question` is empty"),
        ("a.jsonl", GOOD + '{"question": 3, "answer": "So."}\n', ":2:", "must be text, found int"),
        ("a.jsonl", '["Why?", "So."]\n', ":1:", "expected a JSON object"),
        ("a.jsonl", '{"q": "Why?"}\n', ":1:", "no question field among 'q'"),
        ("a.jsonl", "[" * 100_000 + "\n", ":1:", "not JSON"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "Why?"}]}\n', ":1:", "no turn of role 'assistant'"),
        ("a.jsonl", '{"messages": "hello"}\n', ":1:", "`messages` must be a list"),
        ("a.jsonl", '{"question": "W?", "answer": "S.", "correct_answers": [1]}\n', ":1:", "`correct_answers`"),
        ("a.jsonl", '{"instruction": "Be brief.", "question": "W?", "output": "S."}\n', ":1:", "`answer` is missing"),
        ("a.jsonl", "\n", "", "no pairs"),
        ("a.json", '[\n {"question": "Why?", "answer": "So."},\n {"question": "Why?", "answer": }\n]', ":3:", "not JSON"),
        ("a.json", '[\n {"question": "Why?", "answer": "So."},\n\n {"question": "Why?"}\n]', ":4:", "`answer` is missing"),
        ("a.json", '{"data": [{"question": "Why?", "answer": "So."}]}', ":1:", "a list of objects"),
        ("a.csv", "question,answer\nWhy?,So.\nWho?\n", ":3:", "`answer` is missing"),
        ("a.csv", 'question,answer\nWhy?,"So.\n', ":2:", "not CSV"),
        ("a.csv", "question,answer\n\n\nWho?,Me,You\n", ":4:", "header's 2 columns"),
        ("a.csv", 'question,answer\n"Why,\nthen?",So.\nWho?,Me,You\n', ":4:", "header's 2 columns"),
        ("a.jsonl", GOOD + '{"question": "Why \\ud83d?", "answer": "So."}\n', ":2:", "half a character"),
        ("a.txt", "Why?", ":1:", "the first row must name them"),
        ("a.doc", "Why?", "", "unknown kind of file '.doc'"),
    ],
)  # fmt: skip
def test_one_bad_line_is_named_by_file_and_line(tmp_path, name, content, where, what):
    path = write(tmp_path, name, content)
    with pytest.raises(InputError) as error:
        read_samples(path)
    assert str(error.value).startswith(f"{path}{where}")
    assert what in str(error.value)
    assert "\n" not in str(error.value)


def test_a_csv_field_may_hold_other_line_separators(tmp_path):
    path = write(tmp_path, "a.csv", "question,answer\nWhy\u2028so?,So\x0cit is.\n")
    assert [(s.question, s.answer) for s in read_samples(path)] == [("Why\u2028so?", "So\x0cit is.")]


def test_a_file_that_is_not_utf8_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + b'{"question": "\xff?", "answer": "So."}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: not UTF-8"):
        read_samples(path)


def test_questions_need_no_answer(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"question": "Why?"}\n{"prompt": "Who?"}\n')
    assert [sample.question for sample in read_questions(path)] == ["Why?", "Who?"]


def chat(*turns: str) -> dict:
    """Give a conversation of turns that begin with the first letter of their role."""
    roles = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}
    return {"messages": [{"role": roles[turn[0]], "content": turn} for turn in turns]}


@pytest.mark.parametrize(
    ("turns", "question", "answer", "left_out"),
    [
        (["u1", "a1"], "u1", "a1", None),
        (["a0", "u1", "a1"], "u1", "a1", "turns before the question in 1"),
        (["s", "u1", "a1"], "u1", "a1", "system text in 1"),
        (["d", "u1", "s", "a1"], "u1", "a1", "system text in 1"),
        (["u1", "a1", "u2", "a2"], "u1", "a1", "turns after the answer in 1"),
        (["u1", "a1", "t", "a2"], "u1", "a1", "turns after the answer in 1"),
        (["u1", "u2", "a1"], "u1\nu2", "a1", None),
        (["u1", "s", "u2", "a1"], "u1\nu2", "a1", "system text in 1"),
        (["u1", "a1", "a2"], "u1", "a1", "turns after the answer in 1"),
    ],
)
def test_an_answer_is_paired_with_what_precedes_it_and_the_rest_is_said(tmp_path, turns, question, answer, left_out):
    path = write(tmp_path, "a.jsonl", json.dumps(chat(*turns)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (sample,) = read_samples(path)
        (asked,) = read_questions(path)
    assert (sample.question, sample.answer, asked.question) == (question, answer, question)
    assert [str(warning.message) for warning in said] == (
        [
            f"{path}: left out of questions and answers, of 1 rows: {left_out}. "
            "Where answers rest on it, write it into the questions"
        ]
        * 2
        if left_out
        else []
    )


@pytest.mark.parametrize(
    ("turns", "what"),
    [
        (["a0", "u1"], "no turn of role 'assistant' after the user's"),
        (["a0"], "no turn of role 'user'"),
        (["u1", "t", "a1"], "a turn of role 'tool' before the answer"),
        (["t", "u1", "a1"], "a turn of role 'tool' before the answer"),
    ],
)
def test_an_answer_that_cannot_be_paired_is_refused(tmp_path, turns, what):
    path = write(tmp_path, "a.jsonl", GOOD + json.dumps(chat(*turns)))
    with pytest.raises(InputError, match=f"a.jsonl:2: .*{what}"):
        read_samples(path)


@pytest.mark.parametrize("role", [["user"], {"a": 1}, 3, None, "U" * 10_000])
def test_a_role_of_any_kind_is_a_sentence(tmp_path, role):
    row = {"messages": [{"role": role, "content": "x"}, *chat("u1", "a1")["messages"]]}
    with pytest.raises(InputError, match="what is answered is not known") as error:
        read_samples(write(tmp_path, "a.jsonl", json.dumps(row)))
    assert len(str(error.value)) < 1000


def test_fields_beside_question_and_answer_are_counted_once_for_a_file(tmp_path):
    rows = [
        {"question": "Why?", "answer": "So.", "context": "A long text.", "source": "x"},
        {"question": "Who?", "answer": "Me.", "context": "A long text.", "instruction": "Be brief."},
        {"question": "When?", "answer": "Now.", "context": " ", "instruction": "When?"},  # nothing is lost
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {**chat("s", "u", "a"), "prompt": "u"},
    ]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.warns(UserWarning, match="left out") as said:
        read_samples(path)
    assert [str(warning.message).partition(". ")[0] for warning in said] == [
        f"{path}: left out of questions and answers, of 5 rows: `context` in 2, `instruction` in 1, system text in 1"
    ]


@pytest.mark.parametrize("name", ["question", "prompt"])
def test_an_instruction_beside_a_question_does_not_take_its_place(tmp_path, name):
    row = {"instruction": "Be brief.", name: "Why?", "harmless": "So.", "harmful": "Boo."}
    path = write(tmp_path, "a.jsonl", json.dumps(row))
    assert read_questions(path)[0].question == read_preferences(path, "pair")[0].question == "Why?"


def test_a_sample_survives_its_json():
    sample = Sample(
        "1-00003", 'a "b"\n\u2028', "c", 1, "x", ("d",), (), ("seed-00001",), (), 7, True, False, {"F": 0.5}
    )
    assert Sample.from_json(sample.to_json()) == sample
    assert "\n" not in sample.to_json()
