"""Options that are given as a mapping, as configurations have them, in place of the object that they describe."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, cast

from isara_pl.errors import InputError, did_you_mean

T = TypeVar("T")


def options_of(kind: type[T], given: T | Mapping[str, Any], name: str) -> T:
    """Give options of a dataclass, which may be given as a mapping, such as a dict or OmegaConf's DictConfig.

    Raises InputError if it is neither, or holds a name that is none of the options of `name`.
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InputError(
            f"{name} is {given!r}; allowed: isara_pl's {kind.__name__}, or a mapping of its options such as a dict"
        )
    values, known = plain(given), [field.name for field in fields(cast(Any, kind))]
    for option in values:
        if option not in known:
            raise InputError(
                f"{name}: no option {option!r}.{did_you_mean(str(option), known)} Allowed: {', '.join(known)}"
            )
    return kind(**values)


def plain(given: Any) -> Any:
    """Give dicts and lists in place of any mappings and sequences, at every depth."""
    if isinstance(given, Mapping):
        return {key: plain(value) for key, value in given.items()}
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return [plain(value) for value in given]
    return given
