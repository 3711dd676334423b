"""Mistyped names and wrong values: what was wrong, where, the nearest valid name, and what is allowed."""

import pytest
from helpers.command_line import fails
from jsonargparse import ArgumentParser, capture_parser

from isara_pl.cli.commands import parser_of
from isara_pl.cli.errors import UsageError
from isara_pl.cli.lightning import run
from isara_pl.cli.main import main
from isara_pl.errors import did_you_mean, did_you_mean_path

CALLBACKS = "trainer: {{callbacks: [{{class_path: {}}}]}}"


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    """The parser of Lightning's subcommands, to parse with often."""
    return capture_parser(run, ["fit"])


def refused(parser: ArgumentParser, *arguments: str) -> str:
    with pytest.raises(UsageError) as error:
        parser.parse_args(["fit", "--model.name=m", "--data.seeds=s", *arguments])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data.candidate_per_outer_epoch 3", "no option is named --data.candidate_per_outer_epoch. Did you mean --data.candidates_per_outer_epoch?"),
        ("--model.nam=m", "no option is named --model.nam. Did you mean --model.name?"),
        ("--alpha_stopping.alfa 0.3", "Did you mean --alpha_stopping.alpha?"),
        ("--alpha 0.3", "Did you mean --model.lora.alpha or --alpha_stopping.alpha?"),
        ("--trainer.precison 32", "Did you mean --trainer.precision?"),
        ("--data.question_sampling.temprature 1", "Did you mean --data.question_sampling.temperature?"),
        ("--confg run.yaml", "Did you mean --config?"),
        ("extra", "'extra' belongs to no option; every value follows its option"),
        ("--data.seed mine.jsonl", "--data.seed cannot be given, since it follows from --seed_everything. Did you mean --data.seeds?"),
        ("--data.seed 3", "--data.seed cannot be given, since it follows from --seed_everything."),
        ("--trainer.max_epochs 3", "it follows from --data.outer_epochs and --data.epochs_per_outer_epoch."),
        ("--data.tokenizer t", "--data.tokenizer cannot be given, since it follows from --model.name."),
        ("--data.question_context knnn", "data.question_context is 'knnn'. Did you mean knn? Allowed: knn, random"),
        ("--data.batch_size many", "data.batch_size is 'many'. Allowed: a whole number"),
        ("--data.per_source_quota x", "data.per_source_quota is 'x'. Allowed: a whole number, null"),
        ("--trainer.precision bf16mixed", "trainer.precision is 'bf16mixed'. Did you mean bf16-mixed? Allowed: 64, 32, 16, "),
        ("--model.lora 3", "model.lora is '3'. Allowed: a file, or its options: r, alpha, dropout, targets"),
        ("--trainer.callbacks+ TooShot", "trainer.callbacks: there is no class TooShot. Did you mean TooShort? Allowed: the name of a known class"),
        ("--trainer.callbacks isara_pl.callbacks.TooShot", "there is no class isara_pl.callbacks.TooShot. Did you mean isara_pl.callbacks.TooShort?"),
        ("--trainer.callbacks+ nothing.TooShort", "there is no class nothing.TooShort. Did you mean TooShort?"),
        ("--trainer.callbacks isara_pl.cli.lightning.IsaraCLI", "trainer.callbacks: 'isara_pl.cli.lightning.IsaraCLI' is no Callback"),
        ("--trainer.callbacks+ TooShort --trainer.callbacks.min_word 3", "trainer.callbacks: isara_pl.callbacks.TooShort: no option is named min_word. Did you mean min_words? Allowed: min_words"),
        ("--trainer.callbacks+ TooShort --trainer.callbacks.min_words few", "trainer.callbacks: isara_pl.callbacks.TooShort: min_words is 'few'. Allowed: a whole number"),
        ("--trainer.logger TensorBordLogger", "trainer.logger: there is no class TensorBordLogger. Did you mean TensorBoardLogger?"),
    ],
)  # fmt: skip
def test_a_mistyped_option_or_value_is_answered_with_the_nearest(parser, arguments, words):
    assert words in refused(parser, *arguments.split())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("run_dir: r\ndata:\n  demonstration: 3", ":3: no option is named data.demonstration. Did you mean data.demonstrations?"),
        ("modle: {learning_rate: 1}", ":1: no option is named modle.learning_rate. Did you mean model.learning_rate?"),
        ("\ndata: {train_on: al}", ":2: data.train_on is 'al'. Did you mean all? Allowed: all, newest"),
        (CALLBACKS.format("isara_pl.callbacks.NearDuplicat"), ":1: trainer.callbacks: there is no class isara_pl.callbacks.NearDuplicat. Did you mean isara_pl.callbacks.NearDuplicate?"),
        (CALLBACKS.format("TooShort, init_args: {min_word: 3}"), ":1: trainer.callbacks: isara_pl.callbacks.TooShort: no option is named min_word."),
        (CALLBACKS.format("TruthfulnessEvaluation, init_args: {convention: tusk}"), ":1: trainer.callbacks: isara_pl.callbacks.TruthfulnessEvaluation: convention is 'tusk'. Did you mean task? Allowed: task, primer"),
        ("data: {seeds: x\nmodel: {}", ":2: not plain YAML: "),
        ("- a\n- b", ": no options in it; expected lines of `name: value`"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_configuration_is_named_by_file_and_line(parser, tmp_path, content, words):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    for arguments in ([f"--config={path}"], ["--config", str(path)]):
        assert refused(parser, *arguments).startswith(f"{path}{words}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("trainer:\n  max_epochs: 3", ":2: --trainer.max_epochs cannot be given, since it follows from --data.outer_epochs"),
        ("data: {seed: 3}", ":1: --data.seed cannot be given, since it follows from --seed_everything. Did you mean"),
    ],
)  # fmt: skip
def test_an_option_that_follows_from_others_is_refused_in_a_file_too(tmp_path, capsys, content, words):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    assert f"error: {path}{words}" in fails(["fit", f"--config={path}", "--model.name=m", "--data.seeds=s"], capsys)


def test_a_mistyped_file_is_answered_with_the_nearest(parser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/quickstart.yaml").write_text("{}")
    for path in ("configs/quickstrat.yaml", "config/quickstart.yml"):
        message = refused(parser, "--config", path)
        assert message == f"--config {path}: file does not exist. Did you mean configs/quickstart.yaml?"
    assert "Did you mean --config configs/quickstart.yaml?" in refused(parser, "configs/quickstart.yaml")
    assert did_you_mean_path("nothing/like/this.yaml") == ""
    assert did_you_mean_path("confgs") == "", "a folder is no file"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit"], "--model.name and --data.seeds must be given, here or in a --config file\ntip: `isara-pl fit --help`"),
        (["fit", "--model.name=m"], "error: --data.seeds must be given"),
        (["fitt"], "no subcommand is named 'fitt'. Did you mean fit? Allowed: fit, validate, "),
        (["comparee", "runs/a"], "no subcommand is named 'comparee'. Did you mean compare?"),
        (["--run_dir=runs/a", "fit"], "--run_dir stands before the subcommand; it belongs behind it"),
        (["compare"], "[NAME=]RUN must be given\ntip: `isara-pl compare --help`"),
        (["compare", "a", "--referense", "b"], "no option is named --referense. Did you mean --reference?"),
        (["compare", "a", "--outer_epochs", "lst"], "outer_epochs is 'lst'. Did you mean last? Allowed: last, all"),
        (["compare", "a", "--seed=-1"], "seed: Not of type NonNegativeInt"),
        (["fit", "--data.train_on=\x1b[31m\u202eall", "--model.name=m"], "data.train_on is '\\x1b[31m\\u202eall'. Allowed: all, newest"),
        (["fit", "--\x1b[31mred", "--model.name=m"], "no option is named --\\x1b[31mred."),
    ],
)  # fmt: skip
def test_wrong_usage_ends_the_process_with_2_and_one_message(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 2, "the message and the tip"
    assert "\x1b" not in error


def test_names_that_are_near():
    assert did_you_mean("TOOSHORT", ["TooShort", "Unfinished"]) == " Did you mean TooShort?"
    assert did_you_mean("--r", ["--model.lora.r", "--run_dir"]) == " Did you mean --model.lora.r?"
    assert did_you_mean("nothing", ["TooShort"]) == ""
    assert did_you_mean("x", []) == ""


def test_what_nobody_has_foreseen_is_shown_as_it_is():
    with pytest.raises(UsageError, match="of another form"):
        parser_of("compare").error("a message of another form")
