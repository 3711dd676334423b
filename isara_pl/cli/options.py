"""What the command line refuses by itself, before anything is made of the options."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from jsonargparse import Namespace

from isara_pl.errors import InputError


def refuse_null(kind: type, values: Mapping[str, Any], prefix: str) -> None:
    """Refuse null for options that have no such value; jsonargparse admits it for every option.

    Args:
        kind: The class that the options are for.
        values: The options.
        prefix: Name of the group that they stand in.

    Raises:
        InputError: If there is one; the message names it.
    """
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
