"""CSV as spreadsheets write it, and Parquet."""

import io
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isara_pl.errors import InputError
from isara_pl.growth import tables
from isara_pl.growth.samples import read_preferences, read_questions, read_samples


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(columns: dict, **named) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **named)
    return file.getvalue()


def pairs(path, **named):
    return [(sample.question, sample.answer) for sample in read_samples(path, **named)]


def refused(path, read=read_samples, **named) -> str:
    with pytest.raises(InputError) as error:
        read(path, **named)
    message = str(error.value)
    assert message.startswith(f"{path}:")
    assert "\n" not in message
    return message.removeprefix(f"{path}:")


YES = "Yes, until it has left; or later."


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "txt"])
def test_the_delimiter_is_told_by_the_header_whatever_the_ending(tmp_path, delimiter, end, ending):
    rows = [["question", "answer", "category"], ["May I?", f'"{YES}"', "a"], ['"Why ""so""?"', "So.", ""]]
    path = write(tmp_path, f"a.{ending}", "".join(delimiter.join(row) + end for row in rows))
    assert pairs(path) == [("May I?", YES), ('Why "so"?', "So.")]
    assert [sample.category for sample in read_samples(path)] == ["a", None]


def test_other_delimiters_are_text_where_they_stand_in_cells_or_in_the_header(tmp_path):
    assert pairs(write(tmp_path, "a.csv", "question;answer\nMay I?;Yes, until it has left.\n")) == [
        ("May I?", "Yes, until it has left.")
    ]
    path = write(tmp_path, "b.csv", "question;answer;notes, if any, of ours, and of others\nMay I?;Yes.;a, b\n")
    assert pairs(path) == [("May I?", "Yes.")]


def test_the_line_that_tells_excel_the_delimiter_is_obeyed(tmp_path):
    assert pairs(write(tmp_path, "a.csv", "sep=;\r\nquestion;answer\r\nMay I?;Yes, you may.\r\n")) == [
        ("May I?", "Yes, you may.")
    ]
    assert refused(write(tmp_path, "b.csv", "sep=;\r\nquestion;answer\r\nMay I?\r\n")).startswith("3: ")


@pytest.mark.parametrize(
    "row", ["May I?,Yes.,,", "May I?,Yes.", " May I? , Yes.,", 'May I?, "Yes.",a', "May I?,Yes.,\xa0 "]
)
def test_padded_cells_and_cells_that_are_missing_at_the_end_are_read(tmp_path, row):
    assert pairs(write(tmp_path, "a.csv", f"\n,,\n question , answer,category\n{row}\n")) == [("May I?", "Yes.")]


def test_cells_beyond_the_header_are_refused_with_what_is_in_them(tmp_path):
    message = refused(write(tmp_path, "a.csv", "question,answer\nWhy?,So.\nMay I?,Yes, until it has left.\n"))
    assert message.startswith("3: the row has 3 cells, but the header's 2 columns are 'question', 'answer'")
    assert "quotation marks around a cell that holds ','" in message
    assert "' until it has left.'" in message or "'until it has left.'" in message


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_blank_rows_are_left_out_and_counted(tmp_path, delimiter):
    rows = [["question", "answer"], ["Why?", "So."], ["", ""], ["Who?", "Me."], [" ", ""], ["", ""]]
    path = write(tmp_path, "a.csv", "".join(delimiter.join(row) + "\r\n" for row in rows))
    for read in (read_samples, read_questions):
        with pytest.warns(UserWarning, match="blank rows") as said:
            assert [sample.question for sample in read(path)] == ["Why?", "Who?"]
        assert [str(one.message) for one in said] == [
            f"{path}: blank rows were left out, 3 in all, the first at {path}:3"
        ]


def test_a_row_of_which_a_part_is_there_is_not_blank(tmp_path):
    assert refused(write(tmp_path, "a.csv", "question,answer\nWhy?,So.\n,So.\n")).startswith(
        "3: the field `question` is"
    )
    assert refused(write(tmp_path, "b.csv", "question,answer\nWhy?,So.\nWhy?,\n")).startswith(
        "3: the field `answer` is"
    )


@pytest.mark.parametrize(
    ("content", "questions"),
    [
        ("question\nHow long, and why?\nWho?\n", ["How long, and why?", "Who?"]),
        ('question\n"How long, and why?"\nThis; or that?\n', ["How long, and why?", "This; or that?"]),
        ("question\nHow long?,,\nWho?,,\n,,\n", ["How long?", "Who?"]),
        ("Question,\r\nHow long?,\r\n", ["How long?"]),
    ],
)
def test_one_column_is_read_whole(tmp_path, content, questions):
    path = write(tmp_path, "a.csv", content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [sample.question for sample in read_questions(path)] == questions


@pytest.mark.parametrize(
    "columns", ["question=Frage, answer=Die Antwort", {"question": "frage", "answer": "die antwort"}]
)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "Frage;Die Antwort;Hinweis, kurz, knapp\nWie?;So.;x\n"),
        ("b.csv", "Nr;Frage;Die Antwort;Question\n1;Wie?;So.;12\n"),
        ("c.json", '[{"Frage": "Wie?", "Die Antwort": "So."}]'),
        ("d.jsonl", '{"FRAGE": "Wie?", "die_antwort": "So.", "question": 3}\n'),
        ("e.parquet", parquet({"Frage": ["Wie?"], "Die Antwort": ["So."]})),
    ],
)
def test_headers_in_another_language_are_told_by_columns(tmp_path, columns, name, content):
    path = write(tmp_path, name, content)
    assert pairs(path, columns=columns) == [("Wie?", "So.")]
    refused(path)


def test_columns_may_name_other_fields_and_not_every_file_has_them(tmp_path):
    path = write(tmp_path, "a.csv", "Frage;gut;böse\nWie?;So.;Nein.\n")
    (sample,) = read_preferences(path, "pair", "question=Frage,harmless=gut,harmful=Böse")
    assert (sample.question, sample.answer, sample.incorrect_answers) == ("Wie?", "So.", ("Nein.",))
    english = write(tmp_path, "b.csv", "question,answer\nWhy?,So.\n")
    assert pairs(english, columns="question=Frage,answer=Antwort") == [("Why?", "So.")]


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ("qestion=Frage", "'qestion' is no field that is read. Did you mean question?"),
        ("Frage", "'Frage' is no field"),
        ("question=", "no name is given for question"),
        ("", "'' is no field"),
        ({"answer": 3}, "no name is given for answer"),
    ],
)
def test_columns_that_name_nothing_are_refused(tmp_path, columns, what):
    with pytest.raises(InputError, match="columns: ") as error:
        read_samples(write(tmp_path, "a.csv", "question,answer\nWhy?,So.\n"), columns=columns)
    assert what in str(error.value)
    assert "question=Frage,answer=Antwort" in str(error.value)


@pytest.mark.parametrize("content", ["Why?,So.\nWho?,Me.\n", "Fragen;Antworten\nWie?;So.\n", "Why?\nWho?\n"])
def test_a_table_without_a_known_header_is_refused_at_its_first_row(tmp_path, content):
    message = refused(write(tmp_path, "a.csv", "\n" + content))
    assert message.startswith("2: no question field among the columns ")
    assert "the first row must name them: question and answer, or tell yours by `columns`" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"question": "Why?", "answer": "So."}\n\n{"question": "Why?", "answer": "So."}\n'),
        ("a.jsonl", '[{"question": "Why?", "answer": "So."}, {"question": "Why?", "answer": "So."}]'),
        ("a.csv", '[\n {"question": "Why?", "answer": "So."},\n {"question": "Why?", "answer": "So."}\n]'),
        ("a.txt", '{"question": "Why?", "answer": "So."}\n' * 2),
        ("a.json", "question,answer\nWhy?,So.\nWhy?,So.\n"),
        ("a.NDJSON", '{"question": "Why?", "answer": "So."}\n' * 2),
    ],
)
def test_a_file_is_told_by_its_content(tmp_path, name, content):
    assert pairs(write(tmp_path, name, content)) == [("Why?", "So.")] * 2


def test_a_list_in_one_line_names_the_row(tmp_path):
    good = '{"question": "Why?", "answer": "So."}'
    for bad, what in (
        ('{"question": "Why?"}', "the field `answer` is missing"),
        ('{"question": "Why?", "answer": }', "not JSON: "),
        ('{"question": "Why?", "answer": "a", "answer": "b"}', "the field 'answer' stands there twice"),
        ('{"Question": "Why?", "question": "Who?", "answer": "b"}', "the field 'question' stands there twice"),
    ):
        message = refused(write(tmp_path, "a.json", f"[{good}, {good}, {bad}, {good}]"))
        assert message.startswith("1: row 3: ")
        assert what in message


@pytest.mark.parametrize(
    "content",
    [
        '{"question": {"0": "Why?"}, "answer": {"0": "So."}}',  # pandas' own form
        '{"data": [{"question": "Why?", "answer": "So."}]}',
        '{\n "question": "Why?",\n "answer": "So."\n}',
        '{\n "question": "Why?",\n "answer": "So."\n}\n{\n "question": "Why?",\n "answer": "So."\n}',
    ],
)
def test_one_object_that_is_no_row_is_refused_with_the_form_that_is_read(tmp_path, content):
    for name in ("a.json", "a.jsonl"):
        message = refused(write(tmp_path, name, content))
        assert message.startswith("1: an object with the fields ")
        assert 'a list of objects, [{"question": "…", "answer": "…"}, …]' in message


# -- Parquet


@pytest.mark.parametrize("name", ["a.parquet", "a.bin", "a.csv"])
def test_parquet_is_told_by_its_content_and_read(tmp_path, name):
    content = parquet(
        {
            "Question": ["Why?", None, "Who?"],
            "Best Answer": ["So.", None, "Me."],
            "incorrect_answers": [["No."], None, ["You.", "He."]],
            "category": [1.0, None, float("nan")],
            "id": [7, 8, 9],
            "time": pa.array([1, 2, 3], pa.timestamp("ns")),  # which needs pandas to be read
        }
    )
    with pytest.warns(UserWarning, match=r"blank rows were left out, 1 in all, the first at .*: row 2"):
        samples = read_samples(write(tmp_path, name, content))
    assert [(sample.question, sample.answer, sample.category) for sample in samples] == [
        ("Why?", "So.", "1.0"),
        ("Who?", "Me.", None),
    ]
    assert samples[1].incorrect_answers == ("You.", "He.")


def test_conversations_and_null_columns_of_parquet(tmp_path):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    content = parquet({"messages": [turns, None], "question": [None, "Who?"], "answer": [None, "Me."]})
    assert pairs(write(tmp_path, "a.parquet", content)) == [("Why?", "So."), ("Who?", "Me.")]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (parquet({"question": ["Why?", "Who?"], "answer": ["So.", None]}), " row 2: the field `answer` is missing"),
        (parquet({"question": ["Why?"], "answer": [3]}), " row 1: the field `answer` must be text, found int"),
        (parquet({"question": ["Why?"], "answer": [b"So."]}), " row 1: the field `answer` must be text, found bytes"),
        (parquet({"frage": ["Why?"]}), " no question field among the columns 'frage'"),
        (parquet({"question": ["Why?"], "Question": ["Why?"]}), " the column 'question' stands there twice"),
        (parquet({"question": ["Why?"], "answer": ["So."]})[:-9], " not Parquet that can be read"),
        (b"PAR1" + bytes(100), " not Parquet that can be read"),
        (b"PAR1", " not Parquet that can be read"),
        (
            parquet({"question": pa.array([b"\xff"]).view(pa.binary()).cast(pa.string(), safe=False), "answer": ["a"]}),
            "",
        ),
        (parquet({"question": pa.array([], pa.string())}), " no pairs in this file"),
    ],
)
def test_parquet_that_cannot_be_used_names_the_row(tmp_path, content, what):
    assert refused(write(tmp_path, "a.parquet", content)).startswith(what)


def test_parquet_that_holds_far_more_than_its_size_is_not_unpacked_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LARGEST", 1 << 22)
    content = parquet({"question": ["x" * 100_000] * 2000, "answer": ["So."] * 2000})
    assert len(content) < 1 << 20, "the same text again and again takes no space"
    assert "split it into several files" in refused(write(tmp_path, "a.parquet", content))
