"""The options of a run, read from its config.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from isara_pl.errors import InputError
from isara_pl.models.loading import PACKAGE_SCHEME, is_local

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
        """Give an option as text; `null` where it has no value.

        Args:
            name: Its name, such as `model.lora.r`.
        """
        value = self._find(name)
        return "null" if value is None else str(value)

    def get(self, name: str, kind: type[T]) -> T:
        """Give an option's value.

        Args:
            name: Its name, such as `model.name`.
            kind: What it must be.

        Raises:
            InputError: If it is missing, or something else.
        """
        value = self._find(name)
        if not isinstance(value, kind):
            raise InputError(
                f"{self.path}: `{name}` is {value!r}, but must be {kind.__name__}. The file is damaged, or not of a "
                "`fit` of this version: restore it from a copy"
            )
        return value

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Give the value of an option that has few.

        Args:
            name: Its name, such as `data.prompt_format`.
            allowed: The values.

        Raises:
            InputError: If it is none of these.
        """
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


def is_hub_id(name: str) -> bool:
    """Whether a model's name means the same to everybody: a repository of the hub.

    Args:
        name: Hub id, folder, .gguf file or `package://module/path`.
    """
    return not is_local(name)


def public_name(name: str) -> str:
    """Give a model's name without the folders of this machine.

    Args:
        name: Hub id, folder, .gguf file or `package://module/path`.
    """
    if name.startswith(PACKAGE_SCHEME) or is_hub_id(name):
        return name
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] or "a local folder"
