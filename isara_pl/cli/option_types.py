"""What an option admits, read from its type."""

from collections.abc import Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true, false",
    str: "text",
    NoneType: "null",
    dict: "a mapping",
    **dict.fromkeys((list, tuple, Sequence, Iterable), "a list"),
}


def allowed(hint: Any) -> str | None:
    """Say what is allowed, e.g. `knn, random` or `a whole number, null`.

    Args:
        hint: The option's type.

    Returns:
        What is allowed, or None where the type does not tell.
    """
    parts = _allowed_parts(hint)
    return None if None in parts else ", ".join(dict.fromkeys(filter(None, parts)))


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


def choices(hint: Any) -> list[str]:
    """Give the values of a type that has few: of a Literal, a truth value, or null.

    Args:
        hint: The option's type.
    """
    if get_origin(hint) in (Union, UnionType):
        return [choice for part in get_args(hint) for choice in choices(part)]
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    return {bool: ["true", "false"], NoneType: ["null"]}.get(hint, [])


def admits_text(hint: Any) -> bool:
    """Whether an option takes any text, such as a path.

    Args:
        hint: The option's type.
    """
    return str in (hint, *get_args(hint))


def class_names(hint: Any) -> list[str]:
    """Give the names of the known classes that an option admits, be it one or a list of them.

    Args:
        hint: The option's type.
    """
    if get_args(hint) and get_origin(hint) is not Literal:
        return sorted({name for part in get_args(hint) for name in class_names(part)})
    if not isinstance(hint, type) or hint in WORDS:
        return []
    return sorted({kind.__name__ for kind in _with_subclasses(hint) if not kind.__name__.startswith("_")})


def _with_subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)
