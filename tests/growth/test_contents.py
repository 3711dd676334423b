"""Encodings, gzip and what is no text."""

import gzip
import json
import pickle
import zipfile

import pytest

from isara_pl.errors import InputError
from isara_pl.growth import contents
from isara_pl.growth.samples import read_samples

TABLE = "question;answer\r\nWie spät?;Fünf – „gleich“.\r\n"
LINES = '{"question": "Wie spät?", "answer": "Fünf – „gleich“."}\n'
READ = [("Wie spät?", "Fünf – „gleich“.")]


def pairs(path):
    return [(sample.question, sample.answer) for sample in read_samples(path)]


def refused(path) -> str:
    with pytest.raises(InputError) as error:
        read_samples(path)
    message = str(error.value)
    assert message.startswith(f"{path}:")
    return message.removeprefix(f"{path}:")


@pytest.mark.parametrize("text", [TABLE, LINES, f"[{LINES}]"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("\ufeff", "utf-16-le"),
        ("\ufeff", "utf-16-be"),
        ("\ufeff", "utf-32-le"),
        ("\ufeff", "utf-32-be"),
        ("", "utf-16-le"),
        ("", "utf-16-be"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_encodings_that_can_be_told_are_read(tmp_path, text, mark, encoding, pack):
    path = tmp_path / ("a.csv" if text == TABLE else "a.json")
    path.write_bytes(pack((mark + text).encode(encoding)))
    assert pairs(path) == READ


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_windows_1252_is_refused_with_its_line_how_it_would_read_and_the_way_out(tmp_path, ending):
    row = '{"question": "Why?", "answer": "So."}\n{"question": "Tee für zwei?", "answer": "Ja."}'
    table = "question;answer\nWhy?;So.\nTee für zwei?;Ja.\n"
    path = tmp_path / f"a.{ending}"
    path.write_bytes((row if "json" in ending else table).encode("cp1252"))
    message = refused(path)
    assert message.startswith("3:" if "json" not in ending else "2:")
    assert "perhaps Windows-1252, as which this reads" in message
    assert "Tee für zwei" in message
    assert message.endswith("save the file as UTF-8" + (", in Excel as `CSV UTF-8`" if "json" not in ending else ""))


def test_a_mistyped_file_gets_the_nearest_name(tmp_path):
    (tmp_path / "seeds.csv").write_text(TABLE)
    assert refused(tmp_path / "seed.csv") == f" no such file. Did you mean {tmp_path / 'seeds.csv'}?"


@pytest.mark.parametrize(
    "content",
    [
        "question;answer\nПочему так?;Потому.\n".encode("cp1251"),
        "question;answer\nなぜですか;はい\n".encode("shift-jis"),
        TABLE.encode() + b"Why?;S\xff.\n",
    ],
)
def test_no_encoding_is_guessed_where_it_is_unlikely(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    message = refused(tmp_path / "a.csv")
    assert message.partition(":")[0] == str(2 + content.startswith(TABLE.encode()))
    assert "in another encoding, or damaged" in message
    assert "Windows" not in message


def test_text_that_is_cut_inside_a_character_of_utf16_names_its_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(TABLE.encode("utf-16")[:-1])
    assert refused(tmp_path / "a.csv").startswith("2: not UTF-16 text")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv", b"BZh91AY&SY", "packed with bzip2; unpack it"),
        ("a.jsonl.xz", b"\xfd7zXZ\0\0", "packed with xz; unpack it"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\0", "packed with zstd; unpack it"),
        ("a.arrow", b"ARROW1\0\0", "save it as Parquet or JSONL"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-12], "damaged or cut off"),
        ("a.jsonl.gz", b"\x1f\x8b\x08" + bytes(20), "damaged or cut off"),
        ("a.md", b"question,answer\n", "unknown kind of file '.md'; allowed: .jsonl, .ndjson, .json, .csv, .tsv, .txt"),
    ],
)
def test_what_is_no_text_is_named_with_the_way_out(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    assert what in refused(tmp_path / name)


@pytest.mark.parametrize("ending", ["xlsx", "ods", "csv"])
def test_a_zip_archive_that_is_no_workbook_is_told_by_its_content(tmp_path, ending):
    with zipfile.ZipFile(tmp_path / f"a.{ending}", "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    assert "a zip archive that is no workbook of Excel (.xlsx); save the sheet as CSV" in refused(
        tmp_path / f"a.{ending}"
    )


class Opened:
    """Writes a file where it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (open, (self.place, "w"))


@pytest.mark.parametrize("ending", ["pkl", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_is_never_loaded(tmp_path, ending, protocol):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(pickle.dumps(Opened(str(tmp_path / "written")), protocol=protocol))
    message = refused(path)
    assert not (tmp_path / "written").exists()
    assert protocol < 4 or "a pickle, which could run code and is never loaded" in message


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_a_file_holds_is_bounded_also_where_it_is_packed(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(contents, "LARGEST", 1 << 20)
    row = json.dumps({"question": "Why?", "answer": "x" * 1000}) + "\n"
    (tmp_path / "a.jsonl").write_bytes(pack(row.encode() * 900))
    assert len(pairs(tmp_path / "a.jsonl")) == 900
    (tmp_path / "a.jsonl").write_bytes(pack(row.encode() * 1100))
    assert "split it into several files" in refused(tmp_path / "a.jsonl")


def test_a_bomb_is_not_unpacked_whole(tmp_path, monkeypatch):
    read: list[int] = []

    class Counting(gzip.GzipFile):
        def read(self, size=-1):
            read.append(len(content := super().read(size)))
            return content

    monkeypatch.setattr(contents, "LARGEST", 1 << 20)
    monkeypatch.setattr(gzip, "GzipFile", Counting)
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(bytes(1 << 25)))
    assert "split it" in refused(tmp_path / "a.jsonl")
    assert sum(read) <= (1 << 20) + 1
