"""What was wrong, in a sentence: with the options that were given, or in a run, where its user can mend it.

What jsonargparse says by itself may have pages. It is taken apart here; a message of another form is shown as it is.
"""

import re
import sys
from argparse import Action, _SubParsersAction
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import Path as ConfigPath

from isara_pl.cli.options import allowed, choices, class_names, config_files, config_text, place, places, what_is_wrong
from isara_pl.errors import InputError, did_you_mean, did_you_mean_path, first_line

LONGEST = 100  # characters of a value that is shown
FEW = 30  # options that are all named
CLASSES = "the name of a known class, or where to import your own from, such as my_filters.NoDigits"
OUT_OF_MEMORY = (
    "the memory does not suffice. Where it trained: lower data.batch_size or data.max_length, or set "
    "model.gradient_checkpointing true. Where it measured: lower an evaluation's batch_size, or set "
    "model.evaluation_precision trainer. A run that goes on needs --data.on_change continue for a changed batch or "
    "length. In a new --run_dir: model.quantization nf4, or a smaller model"
)
LINK = " --> "  # how jsonargparse notes an option that follows from others
LINKED = rf"(\w+\()?(?P<sources>[\w., ]+)\)?{LINK}(?P<target>[\w.]+)"
KEY = r'\AParser key "(?P<key>[^"]+)"[^:]*:'


class UsageError(ArgumentError):
    """Options or a configuration file that cannot be used; the message is for users as it stands."""

    def __init__(self, message: str) -> None:
        super().__init__(None, message)


class PlainErrors(ArgumentParser):
    """A parser whose errors name what was wrong, where, the nearest valid name, and what is allowed."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, with configuration files read as UTF-8; jsonargparse has no option for it, and takes the locale's."""
        with _configs_in_utf8():
            return super().parse_args(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a UsageError, also where jsonargparse would end the process."""
        raise UsageError(explain(self, message)) from ex


def explain(parser: ArgumentParser, message: str) -> str:
    """Say what a message of jsonargparse means, from any parser: of a subcommand, a class's arguments, or of all."""
    for pattern, explanation in EXPLANATIONS.items():
        found = re.search(pattern, message, re.DOTALL)
        if found:
            return explanation(parser, found)
    return message


def refuse_linked(parser: ArgumentParser, args: Sequence[str]) -> None:
    """Refuse options in a configuration file that follow from others; jsonargparse overwrites what stands there."""
    names = {action.dest: next(iter(action.option_strings), "") for action in _actions(parser)}
    linked = {key: name for key, name in names.items() if LINK in name}
    for key, start in places(linked, args).items():
        if start:
            raise UsageError(start + explain(parser, f"argument {linked[key]}: "))


def names_of(parser: ArgumentParser) -> list[str]:
    """Give the names of all options of a parser; those that follow from others as `SOURCES --> NAME`, too."""
    names = (name for action in parser._actions for name in action.option_strings)
    given = [name for name in names if name.startswith("--") or LINK in name]
    return list(dict.fromkeys([*given, *(action.dest for action in parser._actions)]))


def users_fault(error: BaseException | None) -> str | None:
    """Say what the user can mend behind an error that ended a run; None where the fault is not the user's."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException  # only here: with torch

    from isara_pl.run.memory import is_out_of_memory

    while error is not None:  # jsonargparse wraps what a callback raises
        if isinstance(error, InputError | MisconfigurationException | OSError):
            return str(error)
        if isinstance(error, ModuleNotFoundError) and "pip install" in str(error):  # how Lightning's loggers say it
            extra = "mlflow" if "mlflow" in str(error) else "loggers"
            return f"{first_line(error)} They come with: pip install 'isara_pl[{extra}]'"
        if type(error).__module__.startswith("wandb.errors"):
            return f"W&B: {error} Without an account: --trainer.logger.offline true"
        if isinstance(error, Exception) and type(error).__module__.startswith("mlflow.exceptions"):
            return f"MLflow: {first_line(error)} A database: --trainer.logger.tracking_uri sqlite:///mlflow.db"
        if isinstance(error, Exception) and is_out_of_memory(error):
            return f"{OUT_OF_MEMORY} ({first_line(error)})"
        error = error.__cause__
    return None


@contextmanager
def _configs_in_utf8() -> Iterator[None]:
    read = ConfigPath.read_text

    def read_text(self: ConfigPath) -> str:
        local = Path(self.absolute)
        return config_text(str(local)) if local.is_file() else read(self)

    ConfigPath.read_text = read_text  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigPath.read_text = read  # type: ignore[method-assign]


def subparsers(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    """Give the parsers of a parser's subcommands by their names."""
    return {
        name: subparser
        for action in parser._actions
        if isinstance(action, _SubParsersAction)
        for name, subparser in action.choices.items()
    }


def _unrecognized(parser: ArgumentParser, found: re.Match[str]) -> str:
    words = found["words"].split(" ")
    given = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
    if given is None:
        hint = f" Did you mean --config {words[0]}?" if Path(words[0]).is_file() else ""
        return f"{words[0]!r} belongs to no option; every value follows its option, as in --run_dir runs/mine.{hint}"
    if given in _options(parser):
        return f"{given} stands before the subcommand; it belongs behind it"
    return f"no option is named {given}.{did_you_mean(given, _options(parser))}"


def _unknown_key(parser: ArgumentParser, found: re.Match[str]) -> str:
    key = found["key"]
    known = [option[2:] for option in _options(parser) if option != "--help"]
    all_of_few = f" Allowed: {', '.join(known) or 'none'}" if len(known) <= FEW else ""
    return f"{place(key, _args(parser))}no option is named {key}.{did_you_mean(key, known)}{all_of_few}"


def follows_from(sources: str, target: str, options: Sequence[str]) -> str:
    """Say that an option follows from others, of those that there are."""
    longer = [option for option in options if option.startswith(f"--{target}")]
    hint = f" Did you mean {longer[0]}?" if longer else ""
    given = " and ".join(f"--{source}" for source in sources.split(", "))
    return f"--{target} cannot be given, since it follows from {given}.{hint}"


def _linked(parser: ArgumentParser, found: re.Match[str]) -> str:
    return follows_from(found["sources"], found["target"], _options(parser))


def _config_path(parser: ArgumentParser, found: re.Match[str]) -> str:
    # jsonargparse names the whole path; what the user wrote is easier to recognise
    written = [file for file in config_files(_args(parser)) if str(Path(file).absolute()) == found["path"]]
    file = written[0] if written else found["path"]
    return f"--config {file}: {found['why'].lower()}.{did_you_mean_path(file)}"


def _config_content(parser: ArgumentParser, found: re.Match[str]) -> str:
    files = config_files(_args(parser))
    shown = " ".join(found[0].split())[: 10 * LONGEST].replace('"<unicode string>"', " or ".join(files))
    return next(filter(None, map(what_is_wrong, files)), shown)


def _class_arguments(parser: ArgumentParser, found: re.Match[str]) -> str:
    if re.match("No module named|module .* has no attribute", found["why"]):
        return _class_name(parser, found)
    return f"{_where(parser, found['key'])}: {found['name']}: {found['why']}"


def _class_name(parser: ArgumentParser, found: re.Match[str]) -> str:
    module, _, name = found["name"].rpartition(".")
    known = class_names(_type(parser, found["key"]))
    if module in sys.modules:
        inside = [f"{module}.{one}" for one in known if hasattr(sys.modules[module], one)]
        hint = did_you_mean(found["name"], inside)
    else:
        hint = did_you_mean(name, known)
    return f"{_where(parser, found['key'])}: there is no class {found['name']}.{hint} Allowed: {CLASSES}"


def _class_kind(parser: ArgumentParser, found: re.Match[str]) -> str:
    return f"{_where(parser, found['key'])}: {_shortened(found['value'])} is no {found['kind']}"


def _group(parser: ArgumentParser, found: re.Match[str]) -> str:
    start = f"--{found['key']}."
    names = [option.removeprefix(start) for option in _options(parser) if option.startswith(start)]
    value = _shortened(found["value"])
    return f"{_where(parser, found['key'])} is {value}. Allowed: a file, or its options: {', '.join(names)}"


def _value(parser: ArgumentParser, found: re.Match[str]) -> str:
    key, value, hint = found["key"], found["value"], _type(parser, found["key"])
    required = [action.dest for action in _actions(parser) if action.required and action.option_strings]
    if value == "None" and key in required:
        return _must_be_given(parser, [key] if len(_args(parser)) > 1 else required)
    admitted = allowed(hint)
    if admitted is None:
        return _other_value(parser, found)
    return f"{_where(parser, key)} is {_shortened(value)}.{did_you_mean(value, choices(hint))} Allowed: {admitted}"


def _missing(parser: ArgumentParser, found: re.Match[str]) -> str:
    return _must_be_given(parser, found["names"].split(", "))


def _must_be_given(parser: ArgumentParser, names: list[str]) -> str:
    """Say which options are missing; jsonargparse puts the subcommand before their names."""
    missing = {
        action.option_strings[0] if action.option_strings else str(action.metavar): None
        for action in _actions(parser)
        if any(f".{name}".endswith(f".{action.dest}") for name in names)
    }
    or_else = ", here or in a --config file" if "--config" in _options(parser) else ""
    return f"{' and '.join(missing)} must be given{or_else}"


def _other_value(parser: ArgumentParser, found: re.Match[str]) -> str:
    return f"{_where(parser, found['key'])}: {' '.join(found['why'].split())}"


def _choice(parser: ArgumentParser, found: re.Match[str]) -> str:
    known = re.findall(r"[^\s',]+", found["known"])
    return f"{found['what']} is {found['given']!r}.{did_you_mean(found['given'], known)} Allowed: {', '.join(known)}"


def _args(parser: ArgumentParser) -> list[str]:
    """Give the words that a parser was given; that of a class's arguments may have had none."""
    return getattr(parser, "args", [])


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """Give the options of a parser and of its subcommands."""
    yield from parser._actions
    for subparser in subparsers(parser).values():
        yield from _actions(subparser)


def _options(parser: ArgumentParser) -> list[str]:
    """Give the names that a user can give, `--` included; without those that append, and those that help."""
    names = (name for action in _actions(parser) for name in action.option_strings)
    return list(dict.fromkeys(name for name in names if name.startswith("--") and not name.endswith(("+", ".help"))))


def _type(parser: ArgumentParser, key: str) -> Any:
    return next((getattr(action, "_typehint", None) for action in _actions(parser) if action.dest == key), None)


def _where(parser: ArgumentParser, key: str) -> str:
    return f"{place(key, _args(parser))}{key}"


def _shortened(text: str) -> str:
    return repr(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


# the first one whose pattern is found in a message explains it
EXPLANATIONS: dict[str, Callable[[ArgumentParser, re.Match[str]], str]] = {
    r"\Aunrecognized arguments: (?P<words>.*)": _unrecognized,
    r" does not accept option '(?P<key>[^']+)'\Z": _unknown_key,
    r"\AOption '(?P<key>[^']+)' is not accepted": _unknown_key,
    rf"\Aargument {LINKED}: ": _linked,
    r'\ALinked "(?P<target>[^"]+)" must be given via "(?P<sources>[^"]+)"': _linked,
    rf"{KEY} (?P<why>[A-Z][\w ]+): '(?P<path>[^']+)'": _config_path,
    r"\A(Problems parsing config|Unexpected config): .*": _config_content,
    rf"{KEY}.*?Problem with given class_path '(?P<name>[^']+)':\s*(?P<why>[^\n]*)": _class_arguments,
    rf"{KEY}.*?Expected a dot import path string: (?P<name>[^\n]*)": _class_name,
    rf"{KEY}.*?Import path .*?does not [\w ]+ (?P<kind>\w+)\n.*value: (?P<value>.*)\Z": _class_kind,
    rf"{KEY}\s*Unable to load config '(?P<value>.*?)'\n": _group,
    rf"{KEY}\s*(?P<why>.*?)(Got|Given) value: (?P<value>.*)\Z": _value,
    rf"{KEY}\s*(?P<why>.*)": _other_value,
    r"\Athe following arguments are required: (?P<names>.*)": _missing,
    r"\Aargument (?P<what>\S+): invalid choice: '(?P<given>[^']*)' \(choose from (?P<known>.*)\)": _choice,
}
