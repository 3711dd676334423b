import json
import os

import pytest

from isara_pl.errors import InputError, printable
from isara_pl.growth import rows
from isara_pl.growth.samples import read_preferences, read_questions, read_samples
from isara_pl.growth.shapes import LONGEST_TEXT
from isara_pl.results.compare import Section, Table, as_markdown, as_text

GOOD = {"question": "Why?", "answer": "So."}
DEEP = "[" * 100_000


def refused(path) -> str:
    with pytest.raises(InputError) as error:
        read_samples(path)
    message = str(error.value)
    assert message == printable(message), "shown on a terminal as it is"
    assert "\n" not in message
    assert message.startswith(str(path))
    assert len(message) < len(str(path)) + 700, "a line of thousands of fields is not shown whole"
    return message.removeprefix(str(path))


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"question": "W\\u0000y?", "answer": "So."}', "the field `question` holds the character NUL (U+0000); remove it"),
        ('{"question": "Why?", "answer": "So.", "category": "\\u0000"}', "`category` holds the character NUL"),
        ('{"question": "Why?", "answer": "So.", "correct_answers": ["a", "b\\u0000"]}', "`correct_answers` holds the character NUL"),
        ('{"question": "Why?", "answer": "So.", "incorrect_answers": ["\\ud83d"]}', "`incorrect_answers` holds half a character"),
        ('{"question": "Why?", "answer": "So.", "answer": "No."}', "the field 'answer' stands there twice; remove one"),
        ('{"messages": [{"role": "user", "role": "user", "content": "W?"}]}', "the field 'role' stands there twice"),
        ('{"\\u001b[2J": 1, "\\u001b[2J": 2}', "the field '\\x1b[2J' stands there twice"),
        (f'{{"question": "Why?", "answer": "So.", "correct_answers": {DEEP}', "not JSON: nested too deeply"),
        (f'{{"question": "Why?", "answer": "So.", "more": {DEEP}', "not JSON: nested too deeply"),
        ('{"question": "Why?", "answer": "So.", "more": NaN}', "NaN is no JSON value"),
        ('{"question": "Why?", "answer": "So.", "more": -Infinity}', "-Infinity is no JSON value"),
        ('{"question": "Why?", "answer": "So.", "more": ' + "9" * 5000 + "}", "a number has too many digits"),
        ('{"\\u001b[31m\\u202e": "Why?"}', "no question field among '\\x1b[31m\\u202e'"),
        ('{"' + "x" * 3000 + '": "Why?"}', f"no question field among '{'x' * 40}…';"),
        (json.dumps(dict.fromkeys(map(str, range(1000)), 1)), "and 990 more; expected"),
        ('{"question": "Why?", "answer": "So."} {}', "not JSON: "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_hostile_row_of_json_is_refused_by_file_line_and_field(tmp_path, ending, row, what):
    first, second = (("", "\n") if ending == "jsonl" else ("[", ",\n"))[:2]
    path = write(tmp_path, f"a.{ending}", f"{first}{json.dumps(GOOD)}{second}{row}{']' if first else ''}\n")
    message = refused(path)
    assert message.startswith(":2: ")
    assert what in message


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ("question,answer\nW\0y?,So.\n", ":2: ", "NUL"),
        ("question,answer,Answer \nWhy?,So.,No.\n", ":1: ", "the column 'answer' stands there twice; remove one"),
        ("\n\nquestion,\x1b[2J,\x1b[2J\n", ":3: ", "the column '\\x1b[2j' stands there twice"),
        ("question,answer\nWhy?," + "x" * 140_000 + "\n", ":2: ", "field larger than field limit (131072)"),
        ('question,answer\nWhy?,"So."x\n', ":2: ", "not CSV"),
    ],
)
def test_a_hostile_row_of_csv_is_refused_by_file_and_line(tmp_path, content, where, what):
    message = refused(write(tmp_path, "a.csv", content))
    assert message.startswith(where)
    assert what in message


def test_columns_without_a_name_may_stand_there_twice(tmp_path):
    (sample,) = read_samples(write(tmp_path, "a.csv", "question,answer,,\nWhy?,So.,,\n"))
    assert (sample.question, sample.answer) == ("Why?", "So.")


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_text_longer_than_any_models_window_is_refused_with_its_length(tmp_path, ending):
    for field, row in (
        ("answer", {**GOOD, "answer": "x" * 10_000_000}),
        ("incorrect_answers", {**GOOD, "incorrect_answers": ["y" * 10_000_000]}),
    ):
        path = write(tmp_path, f"a.{ending}", json.dumps([row] if ending == "json" else row))
        row_1 = ":1: row 1" if ending == "json" else ":1"
        assert f"{row_1}: the field `{field}` has 10,000,000 characters; allowed: at most 1,000,000" in refused(path)
    longest = {**GOOD, "answer": "x" * LONGEST_TEXT}
    (sample,) = read_samples(write(tmp_path, f"b.{ending}", json.dumps([longest] if ending == "json" else longest)))
    assert len(sample.answer) == LONGEST_TEXT


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ('[{"question": "Why?", "answer": "So."}\n{"question": "Who?", "answer": "Me."}]', ":2: ", "expected a comma"),
        ('[{"question": "Why?", "answer": "So."},\n]', ":2: ", "not JSON"),
        ('[{"question": "Why?", "answer": "So."}', ":1: ", "the end of the list"),
        ('[{"question": "Why?", "answer": "So."}]\n[]', ":2: ", "something follows the list"),
        ("[]", ": ", "no pairs"),
        ("[ 3 ]", ":1: ", "found int"),
        (DEEP, ":1: ", "nested too deeply"),
        ("no list", ":1: ", "expected one object a line, or a list of objects"),
    ],
)
def test_a_list_that_is_not_json_is_refused_by_its_line(tmp_path, content, where, what):
    message = refused(write(tmp_path, "a.json", content))
    assert message.startswith(where)
    assert what in message


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n\r\n"])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_file_without_rows_is_refused(tmp_path, content, ending):
    assert refused(write(tmp_path, f"a.{ending}", content)).startswith(": no pairs in this file")


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_line_ends_of_windows_and_a_byte_order_mark_are_read(tmp_path, ending):
    row, end = json.dumps(GOOD), "\r\n"
    content = {
        "jsonl": row + end + row + end,
        "json": f"[{row},{end}{row}]{end}",
        "csv": "question,answer\r\nWhy?,So.\r\nWhy?,So.\r\n",
    }
    found = read_samples(write(tmp_path, f"a.{ending}", "\ufeff" + content[ending]))
    assert [(sample.question, sample.answer) for sample in found] == [("Why?", "So.")] * 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        assert refused(tmp_path / name) == ": not a regular file, but a folder, a pipe or a device; give a file"
    assert refused(tmp_path / "c.jsonl") == ": no such file."
    assert "cannot be read" in refused(tmp_path / ("d" * 300 + ".jsonl"))
    with pytest.raises(InputError, match="no such file"):
        read_samples(tmp_path / "a\0b.jsonl")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, "a.jsonl", json.dumps(GOOD))

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", denied)
    assert refused(path) == ": cannot be read: Permission denied"


def test_texts_are_kept_as_they_are_however_they_look(tmp_path):
    text = "<script>alert(1)</script> \x1b[31mred {{7*7}} {%x%} <|im_end|> '; DROP TABLE \u202eesrever\u200d %s ${HOME} !!python/object"
    row = {"question": text, "answer": text, "chosen": text, "rejected": "No."}
    path = write(tmp_path, "a.jsonl", json.dumps(row))
    for read in (read_samples, read_questions, lambda path: read_preferences(path, "pair")):
        assert read(path)[0].question == text
    assert read_samples(path)[0].answer == text


def test_a_list_of_many_rows_takes_time_in_proportion_to_them(tmp_path, monkeypatch):
    texts: list[str] = []

    class Counting(str):
        def __getitem__(self, place):
            texts.append(part := super().__getitem__(place))
            return part

    content = json.dumps([GOOD] * 500)
    path = write(tmp_path, "a.json", content)
    monkeypatch.setattr(rows, "text_of", lambda *_: Counting(content))
    assert len(read_samples(path)) == 500
    assert sum(map(len, texts)) < 10 * len(content), "no row copies the rest of the file"


# -- what is printed


def test_printable_shows_what_steers_a_terminal_and_leaves_the_rest():
    assert printable("a\x1b[31mb\x07\r\x00\x7f\x9b1m") == "a\\x1b[31mb\\x07\\r\\x00\\x7f\\x9b1m"
    assert printable("\u202ea\u202b\u2066\u2069\u200e") == "\\u202ea\\u202b\\u2066\\u2069\\u200e"
    assert printable("half \ud83d") == "half \\ud83d"
    assert printable("two\nlines, Ünï α ≥ 😀 日本") == "two\nlines, Ünï α ≥ 😀 日本"


def test_names_in_a_comparison_steer_no_terminal_and_put_no_html_into_markdown():
    name = "<img src=x onerror=alert(1)>\x1b[2J\nb|"
    part = [Section(name, [Table([name, "b"], [[name, "1"]])], [name])]
    for shown in (as_text(part), as_markdown(part)):
        assert "\x1b" not in shown
        assert shown.count("\\x1b[2J\\nb") == 4
    assert "<img" not in as_markdown(part)
    assert as_markdown(part).count("&lt;img src=x onerror=alert(1)>") == 4


def test_nothing_that_a_pair_holds_steers_the_terminal_of_a_run(run, tmp_path, capsys, monkeypatch):
    bad = "\x1b[31m\u202e<script>"
    rows = [{"question": f"Why {i} {bad}?", "answer": f"So {i} {bad}.", "category": bad} for i in range(6)]
    seeds = write(tmp_path, "hostile.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    items = [{**row, "question": f"Who {i}{bad}", "incorrect_answers": [bad]} for i, row in enumerate(rows)]
    held_out = write(tmp_path, "items.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    run(
        "fit",
        [("OuterEpochTable", {}), ("TruthfulnessEvaluation", {"max_new_tokens": 8}), ("ContaminationGuard", {})],
        "--data.outer_epochs=1",
        f"--data.seeds={seeds}",
        held_out=str(held_out),
    )
    out, error = capsys.readouterr()
    assert "Held-out questions" in out
    assert not any(c in out + error for c in ("\x1b", "\u202e"))
