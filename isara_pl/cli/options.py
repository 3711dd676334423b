"""Options: which follow from others, what each admits, where in a file one stands, and what is refused at once."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from isara_pl.errors import InputError, first_line
from isara_pl.growth.contents import text_of
from isara_pl.models.sources import PACKAGE_SCHEME, resolve_path
from isara_pl.run.files import expanded

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true, false",
    str: "text",
    NoneType: "null",
    dict: "a mapping",
    **dict.fromkeys((list, tuple, Sequence, Iterable), "a list"),
}
# options that name a folder which need not exist yet, and those that may name an existing one by a bare word
_MADE = ("run_dir", "dirpath", "save_dir")
_NAMING = (
    *("model.name", "data.encoder", "data.seeds", "data.held_out", "data.questions", "data.unlabelled_questions"),
    *("items", "prompts", "pairs", "judge.init_args.model"),
)
CONFIG_OPTIONS = ("-c", "--config")
_ELSEWHERE = re.compile(r"[A-Za-z][\w+.-]*://")  # package://…, s3://…


def link(parser: ArgumentParser) -> None:
    """Let options of a run follow from others, so that what must agree is given once."""
    parser.link_arguments("run_dir", "trainer.default_root_dir")
    parser.link_arguments("run_dir", "trainer.logger.init_args.save_dir")  # what a logger writes is part of the run
    parser.link_arguments("run_dir", "checkpoint.dirpath", compute_fn=_checkpoint_folder)
    parser.link_arguments(
        ("data.outer_epochs", "data.epochs_per_outer_epoch"), "trainer.max_epochs", compute_fn=_product
    )
    parser.link_arguments("data.epochs_per_outer_epoch", "trainer.check_val_every_n_epoch")
    parser.link_arguments("data.epochs_per_outer_epoch", "model.epochs_per_outer_epoch")
    parser.link_arguments("model.objective", "data.objective")
    parser.link_arguments("model.name", "data.tokenizer")
    parser.link_arguments("model.trust_remote_code", "data.trust_remote_code")
    for target in ("model.seed", "data.seed"):
        parser.link_arguments("seed_everything", target, compute_fn=_number)
    for target in ("data.question_sampling", "data.answer_sampling", "model.prediction_sampling"):
        parser.link_arguments("data.prompt_format", f"{target}.stop_at_newline", compute_fn=_is_single_line)


def in_full(words: Sequence[str]) -> list[str]:
    """Give a command line with `--model.generator vllm` as `--model.generator.engine vllm`, for which it is short.

    A file there holds all options of the generator, as for any group of options. A configuration that is named as
    `package://module/path` is named by its path.
    """
    full = [*words]
    for place, (word, following) in enumerate(zip(words, [*words[1:], ""], strict=False)):
        option, equals, value = word.partition("=")
        if option == "--model.generator" and not Path(value if equals else following).is_file():
            full[place] = word.replace(option, f"{option}.engine", 1)
        elif option in CONFIG_OPTIONS and equals:
            full[place] = f"{option}={_config_file(value)}"
        elif option in CONFIG_OPTIONS and following:
            full[place + 1] = _config_file(following)
    return full


def refuse_null(kind: type, values: Mapping[str, Any], prefix: str) -> None:
    """Refuse null for options of a class that have no such value; jsonargparse admits it for every option."""
    # of a dataclass the fields, of another class the arguments of its __init__
    hints = get_type_hints(kind if is_dataclass(kind) else kind.__init__)  # type: ignore[misc]  # of this very class
    names = {field.name for field in fields(kind)} if is_dataclass(kind) else hints.keys()
    for name in names & values.keys():
        hint, value = hints[name], values[name]
        if value is None and hint is not NoneType and NoneType not in get_args(hint) and hint is not Any:
            raise InputError(f"{prefix}.{name} is null; give a value, or leave the option out for its default")
        if is_dataclass(hint) and isinstance(hint, type):
            if not isinstance(value, Mapping | Namespace):
                raise InputError(f"{prefix}.{name} is {value!r}; allowed: {', '.join(f.name for f in fields(hint))}")
            refuse_null(hint, vars(value) if isinstance(value, Namespace) else value, f"{prefix}.{name}")


def allowed(hint: Any) -> str | None:
    """Say what a type admits, e.g. `knn, random` or `a whole number, null`; None where it does not tell."""
    parts = _allowed_parts(hint)
    return None if None in parts else ", ".join(dict.fromkeys(filter(None, parts)))


def choices(hint: Any) -> list[str]:
    """Give the values of a type that has few: of a Literal, a truth value, or null."""
    if get_origin(hint) in (Union, UnionType):
        return [choice for part in get_args(hint) for choice in choices(part)]
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    return {bool: ["true", "false"], NoneType: ["null"]}.get(hint, [])


def admits_text(hint: Any) -> bool:
    """Whether an option of this type takes any text, such as a path."""
    return str in (hint, *get_args(hint))


def class_names(hint: Any) -> list[str]:
    """Give the names of the known classes that an option admits, be it one or a list of them."""
    if get_args(hint) and get_origin(hint) is not Literal:
        return sorted({name for part in get_args(hint) for name in class_names(part)})
    if not isinstance(hint, type) or hint in WORDS:
        return []
    return sorted({kind.__name__ for kind in _with_subclasses(hint) if not kind.__name__.startswith("_")})


def config_files(args: Sequence[str]) -> list[str]:
    """Give the configuration files that a command line names."""
    found = []
    for word, following in zip(args, [*args[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option in CONFIG_OPTIONS:
            found.append(value if equals else following)
    return [expanded(_config_file(file)) for file in found if file]


def _config_file(name: str) -> str:
    return str(resolve_path(name, "--config")) if name.startswith(PACKAGE_SCHEME) else name


def config_text(file: str) -> str:
    """Read a configuration file: UTF-8, or what its byte order mark says, whatever the encoding of the locale.

    Raises InputError, whose message begins with `FILE:LINE:`, if it is in another encoding.
    """
    path = Path(file)
    return text_of(path, path.read_bytes())


def place(key: str, args: Sequence[str]) -> str:
    """Give where a key such as `data.seeds` stands, as `FILE:LINE: `; of several files the last one decides.

    Nothing where it was given on the command line, or nowhere.
    """
    return places([key], args)[key]


def places(keys: Iterable[str], args: Sequence[str]) -> dict[str, str]:
    """Give the place of each key, as of `place`."""
    options = [word.partition("=")[0].rstrip("+") for word in args]
    found = dict.fromkeys(keys, "")
    wanted = [
        key for key in found if not any(given == f"--{key}" or given.startswith(f"--{key}.") for given in options)
    ]
    for file in config_files(args):
        try:
            composed = yaml.compose(config_text(file), Loader=yaml.SafeLoader)  # makes no objects
        except (OSError, ValueError, yaml.YAMLError):
            continue
        for key in wanted:
            line, node = None, composed
            for name in key.split("."):
                entries = node.value if isinstance(node, yaml.MappingNode) else []
                line, node = next(((k.start_mark.line, v) for k, v in entries if k.value == name), (None, None))
            if line is not None:
                found[key] = f"{file}:{line + 1}: "
    return found


def file_with(key: str, args: Sequence[str]) -> Path | None:
    """Give the configuration file that decides a key; None where it was given on the command line, or nowhere."""
    file = place(key, args).rsplit(":", 2)[0]
    return Path(file) if file else None


def what_is_wrong(file: str) -> str | None:
    """Say why a file is no configuration; None where it is YAML of the form `name: value`."""
    try:
        content = yaml.safe_load(config_text(file))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{file}{line}: not plain YAML: {error.problem}"
    except InputError as error:
        return str(error)
    except (OSError, ValueError, yaml.YAMLError) as error:
        return f"{file}: cannot be read: {first_line(error)}"
    return None if isinstance(content, dict) else f"{file}: no options in it; expected lines of `name: value`"


# functions with names: jsonargparse's messages have these
def all_expanded(values: Any) -> Any:
    """Give options with every path in them expanded: whoever reads one later then reads the same.

    Raises InputError as of `expanded`.
    """
    if isinstance(values, str):
        return expanded(values)
    if isinstance(values, Namespace):
        for name, value in vars(values).items():
            vars(values)[name] = all_expanded(value)
    if type(values) is dict:
        return {name: all_expanded(value) for name, value in values.items()}
    if type(values) is list:
        return [all_expanded(value) for value in values]
    return values


def all_absolute(values: Any, option: str = "") -> Any:
    """Give options with every path in them absolute: they mean the same wherever they are read.

    A path is what begins with a dot, what stands in an option for one, and what lies in the current folder, unless it
    is a bare word: that may be anything. `option` is made of their names so far, from the outermost to the innermost,
    with dots between.
    """
    if isinstance(values, str):
        name, equals, run = values.partition("=")  # as report.baselines has them
        if equals and option.endswith("baselines") and not _exists(values):
            return f"{name}={Path(expanded(run)).absolute()}"
        return str(Path(values).absolute()) if _starts_from_here(values, option) else values
    if isinstance(values, Namespace):
        values = values.clone()  # what is saved, not what this run goes on with
        for name, value in [*values.items()]:  # those inside included
            values[name] = all_absolute(value, f"{option}.{name}")
    if type(values) is dict:
        return {name: all_absolute(value, f"{option}.{name}") for name, value in values.items()}
    if type(values) is list:
        return [all_absolute(value, option) for value in values]
    return values


def _checkpoint_folder(run_dir: str) -> str:
    from isara_pl.run.folder import CHECKPOINTS  # with torch and Lightning

    return str(Path(run_dir) / CHECKPOINTS)


def _product(outer_epochs: int, epochs: int) -> int:
    return outer_epochs * epochs


def _number(seed: bool | int) -> int:
    return 0 if isinstance(seed, bool) else seed


def _is_single_line(prompt_format: str) -> bool:
    return prompt_format != "chat"


def _allowed_parts(hint: Any) -> list[str | None]:
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return [part for member in get_args(hint) for part in _allowed_parts(member)]
    if kind is Literal:
        return [str(value) for value in get_args(hint)]
    if kind in WORDS:
        return [WORDS[kind]]
    # the types of jsonargparse have rules that their names do not tell
    return [f"a {kind.__name__}" if isinstance(kind, type) and kind.__module__ != "jsonargparse.typing" else None]


def _with_subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)


def _starts_from_here(text: str, option: str) -> bool:
    """Whether a text means a place that depends on the current folder."""
    if not text or _ELSEWHERE.match(text) or Path(text).is_absolute():
        return False
    if text.startswith(("./", "../")) or text in (".", "..") or option.endswith(tuple(f".{name}" for name in _MADE)):
        return True
    bare = "/" not in text and not Path(text).suffix
    named = not bare or option.endswith(tuple(f".{name}" for name in _NAMING))
    return named and _exists(text)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # too long for a name
        return False
