"""Whatever a file, a text or a configuration holds: it is used, or refused in one clear message."""

import contextlib
import gzip
import inspect
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isara_pl.cli.main import main
from isara_pl.datamodule.datamodule import IsaraDataModule
from isara_pl.errors import InputError, printable
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.samples import Sample, read_preferences, read_questions, read_samples
from isara_pl.models.tokens import MARK, control_tokens, encode, mark
from isara_pl.module import IsaraModule
from isara_pl.training.pairs import encode_pair

FAST = settings(
    derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
READERS = (read_samples, read_questions, lambda path: read_preferences(path, "pair"))

# -- readers

ROWS = [
    {"question": "Why\u2028so?", "answer": "It \x1b[31mis.", "category": "c", "correct_answers": ["a", "b"]},
    {"prompt": "Why?", "completion": "So.", "n": [1, 2.5, None, True, {"a": [[]]}]},
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<b>So.</b>"}]},
    {"question": "Why?", "chosen": "No.", "rejected": "Yes.", "incorrect_answers": ["x", "y"]},
    {"conversations": [{"from": "human", "value": [{"type": "text", "text": "W?"}]}, {"from": "gpt", "value": "So."}]},
    {"prompt": [{"role": "user", "content": "Why?"}], "completion": [{"role": "assistant", "content": "So."}]},
]


def parquet_of(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


VALID = {
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    ".json": json.dumps(ROWS, indent=1).encode(),
    ".tsv": "Question\tAntwort\tchosen\trejected\r\nWhy?\tSo, ü.\tNo.\tYes.\r\n\t\t\t\r\n".encode("utf-16"),
    ".jsonl.gz": gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()),
    ".parquet": parquet_of([ROWS[0], ROWS[4]]),
    ".csv": b'Question,Best Answer,Correct Answers,chosen,rejected\r\n"Why,\nso?",So.,a; b,No.,Yes.\r\nWho?,Me.,,No,Yes\r\n',
}
SNIPPETS = st.sampled_from([
    b"", b"\0", b"\xff", b"\xed\xa0\xbd", b"\\ud83d", b"\n", b"\r", b"\r\n", b'"', b",", b"{", b"}", b"[", b"]", b":",
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"\xef\xbb\xbf", b"\\u0000", b"\x1b[2J",
    b'"question": "a", ', b"null", b"\\", b"\xe2\x80\xae", b";;", b"question,answer\n", b"x" * 140_000,
])  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a valid file with up to 3 of its parts replaced."""
    for _ in range(draw(st.integers(0, 3))):
        values = [place + 2 for place in range(len(content)) if content[place : place + 2] == b": "]
        start = draw(st.integers(0, len(content)) | st.sampled_from(values or [0]))
        stop = draw(st.integers(start, min(len(content), start + 30)))
        content = content[:start] + draw(SNIPPETS | st.binary(max_size=6)) + content[stop:]
    return content


def read_or_refuse(path: Path) -> None:
    for read in READERS:
        try:
            samples = read(path)
        except InputError as error:
            message = str(error)
            assert message.startswith(f"{path}:")
            assert message == printable(message)
            assert "\n" not in message
            assert len(message) < len(str(path)) + 700
        else:
            assert samples
            for sample in samples:
                assert Sample.from_json(sample.to_json()) == sample
                assert sample.to_json().encode("utf-8").count(b"\n") == 0
                assert sample.question.strip()


@pytest.mark.parametrize("ending", VALID)
@FAST
@given(st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path, ending, data):
    path = tmp_path / f"a{ending}"
    path.write_bytes(data.draw(damaged(VALID[ending])))
    read_or_refuse(path)


@pytest.mark.parametrize("ending", VALID)
@FAST
@given(st.binary(max_size=60))
def test_a_file_of_any_bytes_is_read_or_refused_in_one_line(tmp_path, ending, content):
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    read_or_refuse(path)


FIELDS = st.sampled_from(
    ["question", "answer", "best_answer", "prompt", "completion", "instruction", "input", "output", "messages", "role"]
    + ["conversations", "from", "value", "weight", "context", "response", "type", "text", "is_safe", "Question"]
    + ["content", "category", "correct_answers", "incorrect_answers", "chosen", "rejected", "harmless", "harmful"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@FAST
@given(st.lists(st.dictionaries(FIELDS, JSON, min_size=1, max_size=6), min_size=1, max_size=3))
def test_fields_of_any_type_are_read_or_refused_in_one_line(tmp_path, rows):
    for path, content in (
        (tmp_path / "a.json", json.dumps(rows)),
        (tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
    ):
        path.write_text(content)
        read_or_refuse(path)


# -- prompts

TOKENIZER = make_tokenizer()
CONTROLS = {0, 1, 2}
FRAGMENTS = st.sampled_from(
    [
        "<|end|>",
        "<|turn|>",
        "<|pad|>",
        "<|",
        "|>",
        "<",
        "end",
        "turn|>",
        MARK,
        f"<{MARK}",
        "\n",
        " ",
        "Answer:",
        "Question:",
    ]
    + [
        "\u2028",
        "\x1c",
        "\x1b[31m",
        " ASSISTANT:",
        "USER:",
        "{{",
        "{%",
        "ISARAQUESTION",
        "ISARAANSWER",
        "\u202e",
        "a",
        "é",
    ]
)
CONTENT = st.lists(FRAGMENTS | st.text(max_size=3), max_size=12).map("".join)
CONTENT = CONTENT.filter(lambda text: text.strip() != "")


def controls(ids: list[int]) -> list[int]:
    return [token for token in ids if token in CONTROLS]


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", ["qa", "chat", "safe-rlhf"])
@FAST
@given(CONTENT, CONTENT)
def test_any_pair_is_trained_on_as_it_is_and_has_the_control_tokens_of_its_format_alone(name, question, answer):
    form = prompt_format(name, TOKENIZER)
    shown = (lambda text: text) if name == "chat" else one_line
    plain, pair = (
        encode_pair(Sample("a", *texts), form, TOKENIZER, 5000, end=True) for texts in (("q", "a"), (question, answer))
    )
    assert controls(pair.input_ids) == controls(plain.input_ids)
    prompt = TOKENIZER.decode(pair.input_ids[: pair.prompt_length])
    assert prompt == prompt_format(name, TOKENIZER).answer_prompt("\0").replace("\0", shown(question))
    trained_on = TOKENIZER.decode(pair.input_ids[pair.prompt_length : -1])
    assert trained_on == ("" if name == "chat" else " ") + shown(answer)


@FAST
@given(CONTENT, CONTENT, st.lists(CONTENT, min_size=2, max_size=4))
def test_what_is_written_in_a_format_is_read_back_from_it(question, answer, others):
    for name in ("qa", "chat", "safe-rlhf"):
        form = prompt_format(name, TOKENIZER)
        pairs = [Sample("a", *others[:2]), Sample("b", others[-1], answer)]
        harmless = [Sample("a", "q", "a"), Sample("b", "q", "a")]
        for prompt, plain in (
            (form.question_prompt(pairs), form.question_prompt(harmless)),
            (form.answer_prompt(question, pairs), form.answer_prompt("q", harmless)),
        ):
            assert controls(encode(TOKENIZER, prompt)) == controls(encode(TOKENIZER, plain))
        if name == "chat":
            written = f"{question}<|end|>\n<|turn|>assistant\n{answer}"
            assert form.parse_question(written) == written.partition("<|end|>\n<|turn|>assistant")[0].strip()
            assert form.parse_answer(f"{answer}<|end|>\n") == answer.partition("<|end|>")[0].strip()
        else:
            assert form.parse_answer(f" {one_line(answer)}\n\nQuestion: {question}") == one_line(answer)
            end = form.before_answer.strip()
            written = form.parse_question(f" {one_line(question)}{form.before_answer} {answer}")
            assert written == one_line(question).partition(end)[0].strip()


@FAST
@given(st.text() | CONTENT)
def test_a_completion_of_any_text_is_parsed(completion):
    for name in ("qa", "chat", "safe-rlhf"):
        form = prompt_format(name, TOKENIZER)
        for text in (form.parse_question(completion), form.parse_answer(completion)):
            assert text == text.strip()
            assert text in completion
            assert not form.single_line or "\n" not in text


@FAST
@given(st.text() | CONTENT)
def test_marks_are_taken_out_where_they_were_put_in(text):
    ids = encode(TOKENIZER, mark(text, control_tokens(TOKENIZER)))
    assert TOKENIZER.decode(ids) == text
    assert not controls(ids)


# -- configuration

WORDS = st.sampled_from(
    [
        "",
        "null",
        "true",
        "1e3",
        "0",
        "-1",
        "nan",
        ".inf",
        "knn",
        "qa",
        "chat",
        "nothing/here",
        "package://x/y",
        "\0",
        "a\0b",
    ]
    + ["[1", "{", "!!x", "\x1b[31m", "9" * 400, "../../etc/passwd", "x.gguf", "${oc.env:HOME}"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(WORDS | st.text(max_size=3), SCALARS, max_size=2)
LINKED = {
    "self",
    "tokenizer",
    "seed",
    "trust_remote_code",
    "epochs_per_outer_epoch",
    "held_out",
    "name",
}
OPTIONS = [
    *(("data", name) for name in inspect.signature(IsaraDataModule.__init__).parameters if name not in LINKED),
    *(("model", name) for name in inspect.signature(IsaraModule.__init__).parameters if name not in LINKED),
    *(("data.question_sampling", name) for name in ("max_new_tokens", "temperature", "top_p", "nothing")),
    *(("model.lora", name) for name in ("r", "alpha", "dropout", "target_modules")),
    ("alpha_stopping", "alpha"),
    ("data", "epochs_per_outer_epoch"),
]


CONFIGURATIONS = st.dictionaries(st.sampled_from(OPTIONS), VALUES, min_size=1, max_size=2)


@settings(FAST, max_examples=15)
@given(CONFIGURATIONS)
def test_any_configuration_is_used_or_refused_without_a_traceback(tiny_llama, seeds_file, tmp_path, chosen):
    assert_used_or_refused(tiny_llama, seeds_file, tmp_path, chosen)


@pytest.mark.slow
@settings(FAST, max_examples=100)
@given(CONFIGURATIONS)
def test_many_configurations_are_used_or_refused_without_a_traceback(tiny_llama, seeds_file, tmp_path, chosen):
    assert_used_or_refused(tiny_llama, seeds_file, tmp_path, chosen)


def assert_used_or_refused(tiny_llama, seeds_file, tmp_path, chosen):
    config = {"run_dir": str(tmp_path / "run"), "model": {"name": tiny_llama}, "data": {"seeds": seeds_file}}
    config["trainer"] = {"accelerator": "cpu", "precision": "32-true", "logger": False}
    for (section, option), value in chosen.items():
        place = config
        for part in section.split("."):
            place = place.setdefault(part, {}) if isinstance(place, dict) else {}
        if isinstance(place, dict):
            place[option] = value
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    error = io.StringIO()
    with (
        contextlib.redirect_stderr(error),
        contextlib.redirect_stdout(io.StringIO()),
        pytest.raises(SystemExit) as stop,
    ):
        main(["validate", f"--config={tmp_path / 'run.yaml'}"])  # where all is well there is nothing to measure on
    assert stop.value.code in (1, 2)
    assert "error: " in error.getvalue()
    assert "\x1b" not in error.getvalue()


@pytest.mark.parametrize("tag", ["object/apply:os.system", "object/new:os.system", "name:os.system", "module:os"])
@pytest.mark.parametrize("place", ["data: {{seeds: {}}}", "{}", "trainer: {{callbacks: [{}]}}", "run_dir: {}"])
def test_a_configuration_runs_no_code(tmp_path, capsys, tag, place):
    marker = tmp_path / "ran"
    value = f"!!python/{tag} ['touch {marker}']" if "object" in tag else f"!!python/{tag} ''"
    (tmp_path / "run.yaml").write_text(place.format(value) + "\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={tmp_path / 'run.yaml'}"])
    assert stop.value.code == 2
    assert "could not determine a constructor" in capsys.readouterr().err
    assert not marker.exists()
