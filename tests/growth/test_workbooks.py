"""Excel's workbooks, which are told by their content."""

import datetime
import gzip
import io
import warnings
import zipfile
from importlib.util import find_spec

import openpyxl
import pytest

from isara_pl.errors import InputError
from isara_pl.growth import contents, workbooks
from isara_pl.growth.samples import read_questions, read_samples

HEADER = ("question", "answer")


def workbook(*rows, more=None, formats=None) -> bytes:
    """Give a workbook with the rows on its first sheet, `more` sheets by their names, and formats of cells."""
    book = openpyxl.Workbook()
    for name, of_sheet in {"Sheet": rows, **(more or {})}.items():
        sheet = book["Sheet"] if name == "Sheet" else book.create_sheet(name)
        for row in of_sheet:
            sheet.append(row)
    for place, written in (formats or {}).items():
        book["Sheet"][place].number_format = written
    return saved(book)


def saved(book) -> bytes:
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def changed(content: bytes, part: str, before: str, after: str) -> bytes:
    """Change what a part of a workbook says, as other programs than openpyxl write it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == part:
                assert before.encode() in text
                text = text.replace(before.encode(), after.encode())
            new.writestr(name, text)
    return file.getvalue()


def pairs(folder, content: bytes, name: str = "a.xlsx", **named) -> list[tuple[str, str]]:
    (folder / name).write_bytes(content)
    return [(sample.question, sample.answer) for sample in read_samples(folder / name, **named)]


def refused(folder, content: bytes, name: str = "a.xlsx") -> str:
    with pytest.raises(InputError) as error:
        pairs(folder, content, name)
    message = str(error.value)
    assert message.startswith(f"{folder / name}:")
    assert "\n" not in message
    return message.removeprefix(f"{folder / name}:")


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv", "a.jsonl", "a"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_workbook_is_read_whatever_its_ending(tmp_path, name, pack):
    content = workbook((), ("Question ", "Notes", "Answer"), ("Why?", datetime.date(2026, 1, 2), " So; or so. "))
    assert pairs(tmp_path, pack(content), name) == [("Why?", "So; or so.")]


@pytest.mark.parametrize("name", ["a.xlsx", "a.xls", "a.xlsm"])
def test_a_table_with_a_workbook_s_ending_is_read_as_the_table_that_it_is(tmp_path, name):
    assert pairs(tmp_path, b"question\tanswer\nWhy?\tSo.\n", name) == [("Why?", "So.")]


def test_what_excel_shows_of_numbers_lines_and_results_is_read(tmp_path):
    content = workbook(HEADER, ("How many?", 42), ("How much?", 0.1 + 0.2), ("Is it?", True), ("How?", "a_x000D_\nb"))
    assert [answer for _, answer in pairs(tmp_path, content)] == ["42", "0.3", "TRUE", "a\nb"]
    formula = workbook(HEADER, ("Why?", "=A2"))
    # as Excel itself saves it, in place of what openpyxl writes with lxml and without
    sheet, before = "xl/worksheets/sheet1.xml", '<c r="B2"><f>A2</f><v'
    for empty in ("/></c>", " /></c>", "></v></c>"):
        with zipfile.ZipFile(io.BytesIO(formula)) as file:
            if before + empty in file.read(sheet).decode():
                computed = changed(formula, sheet, before + empty, '<c r="B2" t="str"><f>A2</f><v>So.</v></c>')
    assert pairs(tmp_path, computed) == [("Why?", "So.")]


@pytest.mark.parametrize(
    ("cell", "written", "what"),
    [
        ("=A2", "General", "a formula whose result is not in the file; open the file in Excel and save it there"),
        ("#N/A", "General", "the error #N/A; mend it"),
        (datetime.datetime(2026, 3, 1), "d. mmm", "a date or a time"),
        (datetime.time(12, 30), "hh:mm", "a date or a time"),
        (0.5, "0%", "the number 0.5 in the format '0%', in which it is shown otherwise; format its column as Text"),
    ],
)
def test_a_cell_whose_text_is_not_in_the_file_is_refused_with_its_row(tmp_path, cell, written, what):
    message = refused(tmp_path, workbook(HEADER, ("Who?", "Me."), ("Why?", cell), formats={"B3": written}))
    assert message.startswith("3: the cell B3 holds ")
    assert what in message
    beside = workbook((*HEADER, "notes"), ("Who?", "Me.", cell))
    assert pairs(tmp_path, beside) == [("Who?", "Me.")], "what is not read may hold anything"


def test_blank_rows_are_left_out_and_rows_keep_their_numbers(tmp_path):
    content = workbook(HEADER, (), ("Why?", "So."), (" ", None), ("Who?", "Me."))
    with pytest.warns(UserWarning, match=r"blank rows were left out, 2 in all, the first at .*a\.xlsx:2"):
        assert pairs(tmp_path, content) == [("Why?", "So."), ("Who?", "Me.")]
    assert refused(tmp_path, workbook(HEADER, (), ("Why?", None))).startswith("3: the field `answer` is missing")


def test_the_one_visible_sheet_that_can_be_read_is_taken(tmp_path):
    other = [HEADER, ("Who?", "Me.")]
    assert pairs(tmp_path, workbook(("a note",), more={"Pairs": other})) == [("Who?", "Me.")]
    both = workbook(HEADER, ("Why?", "So."), more={"Old": other})
    assert "the sheets 'Sheet', 'Old' all have columns that can be read; keep one" in refused(tmp_path, both)
    book = openpyxl.load_workbook(io.BytesIO(both))
    book["Old"].sheet_state = "hidden"
    assert pairs(tmp_path, saved(book)) == [("Why?", "So.")]


def test_a_workbook_without_usable_columns_says_what_it_has_and_columns_may_be_told(tmp_path):
    content = workbook(("Frage", "Antwort"), ("Why?", "So."), more={"Empty": []})
    message = refused(tmp_path, content)
    assert "no sheet with columns that can be read; the first row of one must name them: question and answer" in message
    assert "'Sheet' has 'Frage', 'Antwort'; 'Empty' has nothing" in message
    assert pairs(tmp_path, content, columns="question=Frage,answer=Antwort") == [("Why?", "So.")]
    assert "twice" in refused(tmp_path, workbook(("question", "Question ", "answer"), ("Why?", "Who?", "So.")))


def test_questions_alone_and_lists_are_read_as_of_other_tables(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(workbook(("question", "incorrect answers"), ("Why?", "No.; Never.")))
    (question,) = read_questions(tmp_path / "a.xlsx")
    assert question.question == "Why?"
    (tmp_path / "a.xlsx").write_bytes(workbook((*HEADER, "incorrect answers"), ("Why?", "So.", "No.; Never.")))
    assert read_samples(tmp_path / "a.xlsx")[0].incorrect_answers == ("No.", "Never.")


def test_what_cannot_be_read_is_said_with_the_way_out(tmp_path, monkeypatch):
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(50)
    assert "a workbook of old Excel (.xls); save it as .xlsx, or save the sheet as CSV" in refused(
        tmp_path, ole, "a.xls"
    )
    locked = ole + "EncryptedPackage".encode("utf-16-le")
    assert "a workbook with a password; remove it in Excel" in refused(tmp_path, locked)
    whole = workbook(HEADER, ("Why?", "So."))
    assert "damaged or cut off" in refused(tmp_path, whole[: len(whole) // 2])
    damaged = changed(whole, "xl/worksheets/sheet1.xml", "<sheetData>", "<sheetData")
    assert "not a workbook that can be read" in refused(tmp_path, damaged)
    far = changed(workbook(HEADER, ("Why?", "=A2")), "xl/worksheets/sheet1.xml", '<row r="2"', '<row r="999999999999"')
    assert "more than 1,048,576 rows" in refused(tmp_path, far)
    monkeypatch.setattr(workbooks, "find_spec", lambda name: None if name == "openpyxl" else find_spec(name))
    assert "needs openpyxl: pip install 'isara_pl[excel]'; or save the sheet as CSV" in refused(tmp_path, whole)
    monkeypatch.setattr(workbooks, "LARGEST", 1000)
    assert "split it into several files" in refused(tmp_path, whole)


def test_openpyxl_s_own_warnings_are_not_shown(tmp_path):
    content = workbook(HEADER, ("Why?", "So."))
    extended = changed(
        content,
        "xl/worksheets/sheet1.xml",
        "</worksheet>",
        '<extLst><ext uri="{CCE6A557-97BC-4B89-ADB6-D9C93CAAB3DF}"/></extLst></worksheet>',
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pairs(tmp_path, extended) == [("Why?", "So.")]
    assert contents.LARGEST == workbooks.LARGEST
