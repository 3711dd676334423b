"""Terminals, files that output is redirected to, locales and configuration files in other encodings than UTF-8."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isara_pl.cli.errors import PlainErrors
from isara_pl.cli.main import main
from isara_pl.errors import InputError
from isara_pl.models.sources import resolve_path

ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
PARSE = """
import sys
from isara_pl.cli.errors import PlainErrors
parser = PlainErrors()
parser.add_argument("--config", action="config")
parser.add_argument("--seeds")
for config in sys.argv[1:]:
    print(ascii(parser.parse_args([f"--config={config}"]).seeds))
"""


def python(*arguments, **environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)


def seeds_of(config: Path) -> str:
    parser = PlainErrors()
    parser.add_argument("--config", action="config")
    parser.add_argument("--seeds")
    return parser.parse_args([f"--config={config}"]).seeds


def printed(encoding: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Give what the command line prints where standard output has an encoding."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        main([*arguments])
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "latin-1"])
@pytest.mark.parametrize("alpha", [(), ("--alpha",)])
def test_a_comparison_is_written_in_the_encoding_that_there_is(undisturbed, monkeypatch, encoding, alpha):
    text = printed(encoding, monkeypatch, "compare", *alpha, str(undisturbed))
    assert ("answer NLL ↓" if encoding == "utf-8" else "answer NLL v") in text
    if alpha:
        assert ("where α would have stopped it" if encoding == "utf-8" else "where alpha would have stopped it") in text


def test_a_report_is_printed_in_the_encoding_that_there_is(undisturbed, tmp_path, monkeypatch):
    to = str(tmp_path / "report.html")
    assert "alpha" in printed("cp1252", monkeypatch, "report", str(undisturbed), "--to", to)


# in a process of its own, whose streams Python makes
def test_an_error_shows_a_character_that_the_encoding_has_not_as_its_escape(tmp_path):
    done = python("-m", "isara_pl", "compare", str(tmp_path / "läuft α日"), PYTHONIOENCODING="cp1252")
    assert done.returncode == 1
    assert "läuft alpha\\u65e5" in done.stderr.decode("cp1252")


def test_a_config_is_read_in_its_own_encoding_not_in_that_of_the_locale(tmp_path):
    configs = [tmp_path / f"{encoding}.yaml" for encoding in ("utf-8", "utf-8-sig", "utf-16")]
    for config in configs:
        config.write_bytes("seeds: sämlinge.jsonl # für α\n".encode(config.stem))
        assert seeds_of(config) == "sämlinge.jsonl"
    done = python("-c", PARSE, *configs, **ASCII_LOCALE)
    assert (done.stderr, done.stdout.split()) == (b"", [rb"'s\xe4mlinge.jsonl'"] * 3)


def test_a_part_of_a_config_that_is_a_file_is_read_alike(tmp_path):
    (tmp_path / "part.yaml").write_text("seeds: sämlinge.jsonl\n", encoding="utf-8")
    (tmp_path / "a.yaml").write_text("data: part.yaml\n", encoding="utf-8")
    parse = """
import dataclasses, sys
from isara_pl.cli.errors import PlainErrors
@dataclasses.dataclass
class Data:
    seeds: str = ""
parser = PlainErrors()
parser.add_argument("--config", action="config")
parser.add_class_arguments(Data, "data")
for argument in sys.argv[1:]:
    print(ascii(parser.parse_args([argument]).data.seeds))
"""
    arguments = [f"--config={tmp_path / 'a.yaml'}", f"--data={tmp_path / 'part.yaml'}"]
    done = python("-c", parse, *arguments, **ASCII_LOCALE)
    assert (done.stderr, done.stdout.split()) == (b"", [rb"'s\xe4mlinge.jsonl'"] * 2)


def test_a_config_in_another_encoding_is_refused_with_its_line_and_the_way_out(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_bytes("# a\nseeds: sämlinge.jsonl\n".encode("cp1252"))
    with pytest.raises(InputError) as error:
        seeds_of(config)
    assert str(error.value).startswith(f"{config}:2: not UTF-8 text (byte 12), but perhaps Windows-1252")
    assert str(error.value).endswith("as which this reads 'seeds: sämlinge.json'; save the file as UTF-8")


def test_a_path_that_the_locale_cannot_name_says_so(tmp_path):
    (tmp_path / "sämlinge.csv").write_text("question,answer\nWhy?,So.\n")
    code = "import sys; from isara_pl.models.sources import resolve_path; resolve_path(ascii_path, 'data.seeds')"
    code = code.replace("ascii_path", ascii(str(tmp_path / "sämlinge.csv")))
    done = python("-c", code, **ASCII_LOCALE)
    assert b"PYTHONUTF8=1" in done.stderr.splitlines()[-1]
    assert b"InputError: data.seeds: " in done.stderr.splitlines()[-1]
    assert python("-c", code, **{**ASCII_LOCALE, "PYTHONUTF8": "1"}).returncode == 0


def test_a_folder_that_the_locale_cannot_name_ends_a_run_in_a_sentence(monkeypatch, capsys):
    def make_folder(*_):
        raise UnicodeEncodeError("ascii", "runs/läuft", 6, 7, "ordinal not in range(128)")

    monkeypatch.setattr("isara_pl.cli.main._run", make_folder)
    with pytest.raises(UnicodeEncodeError):  # a fault of ours where names are in UTF-8
        main(["fit"])
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(SystemExit, match="1"):
        main(["fit"])
    assert capsys.readouterr().err.startswith("error: runs/läuft: the encoding of this system's locale, ascii, has not")


def test_the_nearest_name_of_a_file_is_told(tmp_path):
    (tmp_path / "seeds.csv").write_text("question,answer\nWhy?,So.\n")
    (tmp_path / "models").mkdir()
    for given, near in (("seed.csv", "seeds.csv"), ("seeds.jsonl", "seeds.csv"), ("model", "models")):
        with pytest.raises(InputError) as error:
            resolve_path(str(tmp_path / given), "data.seeds")
        assert str(error.value) == (
            f"data.seeds: no such file or folder: {tmp_path / given}. Did you mean {tmp_path / near}?"
        )
    with pytest.raises(InputError, match=r"Did you mean package://isara_pl/quickstart/seeds\.jsonl\?"):
        resolve_path("package://isara_pl/quickstart/seed.jsonl", "data.seeds")


def test_output_of_another_kind_of_stream_is_left_alone(capsys, monkeypatch):
    class Notebook:
        """A stream as notebooks have."""

        def write(self, text):
            return len(text)

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stdout", Notebook())
    main(["--version"])
