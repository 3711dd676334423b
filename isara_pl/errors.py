"""The one error that means: what the user gave cannot be used; how others are quoted in it; what was probably meant."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path


class InputError(ValueError):
    """A file, an option, a model or a missing package that the user has to change.

    The message says what is wrong, where, what is allowed and what to do. The command line prints
    it without a traceback.
    """


class Notice(UserWarning):
    """What a user shall know, in a sentence, and what goes on all the same."""


def first_line(error: Exception) -> str:
    """Give the first line of another library's error, which may have pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def short(names: Sequence[str]) -> str:
    """Quote the names of fields for a message, also where a file has thousands or very long ones."""
    quoted = [repr(name if len(name) <= 40 else f"{name[:40]}…") for name in names[:10]]
    return ", ".join([*quoted, *([f"and {len(names) - 10} more"] if len(names) > 10 else [])])


def printable(text: str) -> str:
    r"""Escape what would steer a terminal, or make a text look like another one; newlines stay.

    Args:
        text: May hold parts of a file, or what a model wrote: ANSI escapes, text that runs from right to left.

    Example:
        >>> print(printable("a red \x1b[31mword"))
        a red \x1b[31mword
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Give ` Did you mean NAME?`, or nothing where no name is near.

    Names that end in a dot and what was given are the near ones: `model.lora.alpha` for `alpha`.

    Args:
        given: The name that does not exist.
        known: Those that do; what is before their last dot says where they belong.
    """
    names = {name.casefold(): name for name in known}
    near = [name for name in names if name.endswith(f".{given.casefold().lstrip('-')}")]
    near = near or difflib.get_close_matches(given.casefold(), names, n=1)
    return f" Did you mean {' or '.join(names[name] for name in near)}?" if near else ""


def did_you_mean_path(given: str, is_wanted: Callable[[Path], bool] = Path.is_file) -> str:
    """Give ` Did you mean PATH?`, or nothing where no path is near; each of its parts may be mistyped.

    Args:
        given: The path that does not exist.
        is_wanted: Whether a path is of the wanted kind; files are.
    """
    path = Path(given)
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        names = []
        with suppress(OSError):  # a folder that may not be read
            names = sorted(entry.name for entry in found.iterdir())
        near = [part] if part in (*names, "..") else difflib.get_close_matches(part, names, n=1)
        if not near:
            return ""
        found /= near[0]
    return f" Did you mean {found}?" if is_wanted(found) else ""
