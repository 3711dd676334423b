"""The options of a run, read from its config.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from isara_pl.errors import InputError

T = TypeVar("T")


class RunOptions:
    """Every option of a run, by its name on the command line.

    Args:
        path: The run's config.yaml, for errors.
        values: What it holds, in groups.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self._values = values

    def shown(self, name: str) -> str:
        """Give an option as text; `null` where it has no value."""
        value = self._find(name)
        return "null" if value is None else str(value)

    def get(self, name: str, kind: type[T]) -> T:
        """Give an option's value; anything but this kind, such as nothing, is an InputError."""
        value = self._find(name)
        if not isinstance(value, kind):
            raise InputError(
                f"{self.path}: `{name}` is {value!r}, but must be {kind.__name__}. The file is damaged, or not of a "
                "`fit` of this version: restore it from a copy"
            )
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Give the value of an option that has few; any other is an InputError."""
        value = self.get(name, str)
        if value not in allowed:
            raise InputError(
                f"{self.path}: `{name}` is {value!r}; allowed: {', '.join(allowed)}. Restore it from a copy"
            )
        return value

    def _find(self, name: str) -> Any:
        value: Any = self._values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value
