"""Where in the configuration files of a command line something stands."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from isara_pl.errors import first_line
from isara_pl.run.paths import expanded


def config_files(args: Sequence[str]) -> list[str]:
    """Give the configuration files that a command line names.

    Args:
        args: The command line.
    """
    found = []
    for word, following in zip(args, [*args[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option in ("-c", "--config"):
            found.append(value if equals else following)
    return [expanded(file) for file in found if file]


def place(key: str, args: Sequence[str]) -> str:
    """Give where a key stands, as `FILE:LINE: `; nothing where it was given on the command line, or nowhere.

    Args:
        key: The names from the outermost to the innermost, with dots between.
        args: The command line; of several files the last one decides.
    """
    options = [word.partition("=")[0].rstrip("+") for word in args]
    if any(option == f"--{key}" or option.startswith(f"--{key}.") for option in options):
        return ""
    for file in reversed(config_files(args)):
        try:
            node = _compose(file)
        except (OSError, ValueError, yaml.YAMLError):
            continue
        line = None
        for name in key.split("."):
            entries = node.value if isinstance(node, yaml.MappingNode) else []
            line, node = next(((k.start_mark.line, v) for k, v in entries if k.value == name), (None, None))
        if line is not None:
            return f"{file}:{line + 1}: "
    return ""


def file_with(key: str, args: Sequence[str]) -> Path | None:
    """Give the configuration file that decides a key; None where it was given on the command line, or nowhere.

    Args:
        key: As of `place`.
        args: The command line.
    """
    file = place(key, args).rsplit(":", 2)[0]
    return Path(file) if file else None


def what_is_wrong(file: str) -> str | None:
    """Say why a file is no configuration.

    Args:
        file: The file.

    Returns:
        The reason, or None where it is YAML of the form `name: value`.
    """
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        return f"{file}{line}: not plain YAML: {error.problem}"
    except (OSError, ValueError, yaml.YAMLError) as error:
        return f"{file}: cannot be read: {first_line(error)}"
    return None if isinstance(content, dict) else f"{file}: no options in it; expected lines of `name: value`"


def _compose(file: str) -> yaml.Node | None:
    """Read a file as YAML without making objects of it."""
    return yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
