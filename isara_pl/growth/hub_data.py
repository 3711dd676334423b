"""Data sets of the Hugging Face hub as files of rows: `hf://OWNER/NAME?split=train`, which `datasets` reads, an extra.

Nothing is asked of the hub, and `datasets` is not imported, until rows of such a name are read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from isara_pl.errors import InputError, did_you_mean, printable, short
from isara_pl.growth.contents import LARGEST
from isara_pl.growth.tables import Row, columns_of, normal
from isara_pl.models.sources import resolve_path

SCHEME = "hf://"
_QUERY = ("split", "columns", "config", "revision")
_EXPECTED = (
    "hf://OWNER/NAME?split=train, and, with & between them, config=NAME, revision=COMMIT and "
    "columns=question=Frage,answer=Antwort"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubData:
    """A split of a data set of the hub.

    Attributes:
        given: The whole name, as it was given.
        repository: OWNER/NAME.
        options: What follows the question mark: split, columns, config and revision.
    """

    given: str
    repository: str
    options: dict[str, str] = field(hash=False)

    def __str__(self) -> str:
        """Give the name as it was given, which begins errors."""
        return self.given

    @property
    def name(self) -> str:
        """What it is called where a file's name stands else."""
        return self.given

    @property
    def columns(self) -> str | None:
        """The names that fields have there; None where none are given."""
        return self.options.get("columns")

    @property
    def commit(self) -> str:
        """The commit that is read."""
        return str(self._builder.hash)

    def rows(self, names: frozenset[str]) -> Iterator[tuple[str, Row]]:
        """Yield the place and those fields of every row whose names are known.

        Raises InputError, whose message begins with the name, if there is no such data set, split or column.
        """
        data = self._data
        given: list[str] = data.column_names
        for own in (part.partition("=")[2] for part in (self.columns or "").split(",")):
            if own and normal(own) not in map(normal, given):
                raise InputError(
                    f"{self}: no column is named {own.strip()!r}.{did_you_mean(own.strip(), given)} There are "
                    f"{short(given)}"
                )
        columns = columns_of(given, str(self), names)
        known = {name: column for name, column in zip(given, columns, strict=True) if column in names}
        data = data.select_columns([*known])  # others, such as images, are not decoded
        if data.data.nbytes > LARGEST:
            raise InputError(f"{self}: holds more than {LARGEST >> 30} GiB; give a part of it: split=train[:64]")
        # labels are stored as numbers
        labels = {name: kind.int2str for name, kind in data.features.items() if type(kind).__name__ == "ClassLabel"}
        for number, row in enumerate(data, start=1):
            named = {name: labels[name](row[name]) for name in labels if row[name] is not None}
            yield f"{self}: row {number}", {column: {**row, **named}[name] for name, column in known.items()}

    @cached_property
    def _data(self) -> Any:
        known = [*self._builder.info.splits]
        split = self.options.get("split") or (known[0] if len(known) == 1 else None)
        if split is None:
            raise InputError(
                f"{self}: which split? Allowed: {short(known)}, as in {SCHEME}{self.repository}?split={known[0]}"
            )
        for name in (part.partition("[")[0].strip() for part in split.split("+")):
            if name not in known:
                raise InputError(
                    f"{self}: no split is named {name!r}.{did_you_mean(name, known)} Allowed: {short(known)}"
                )
        try:
            return self._builder.as_dataset(split)
        except (ValueError, OSError) as error:
            raise InputError(f"{self}: split {split!r} cannot be read: {_line(error)}") from None

    @cached_property
    def _builder(self) -> Any:
        """The data set with its splits, from the hub, or where that cannot be reached from the cache of `datasets`."""
        if find_spec("datasets") is None:
            raise InputError(
                f"{self}: data sets of the hub need the package datasets: pip install 'isara_pl[hub-data]'"
            )
        from isara_pl.models.hub import go_offline_where_unreachable, is_offline  # these take a second to import

        go_offline_where_unreachable()
        import datasets
        from datasets.packaged_modules.cache.cache import Cache

        offline = is_offline()
        datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE or offline
        config, revision = self.options.get("config"), self.options.get("revision")
        try:
            # under this name no folder on this machine is taken for it
            builder = datasets.load_dataset_builder(f"hf://datasets/{self.repository}", config, revision=revision)
            builder.download_and_prepare()
        except Exception as error:  # of the hub, its HTTP library, the files there and the disk
            raise InputError(f"{self}: {self._why(error, offline)}") from None
        unsure = isinstance(builder, Cache) and revision is not None  # the cache knows commits alone
        if builder.hash != revision and (unsure or _COMMIT.fullmatch(revision or "")):
            raise InputError(
                f"{self}: revision {revision} cannot be had; the latest in the cache here is {builder.hash}. "
                "Give that one, or read it once where the hub can be reached"
            )
        return builder

    def _why(self, error: Exception, offline: bool) -> str:
        if not offline:
            return f"cannot be read from the hub: {_line(error)}"
        config = f", {self.options['config']!r}" if "config" in self.options else ""
        return (
            f"not in the cache of datasets on this machine, and the hub is not asked (HF_HUB_OFFLINE, or it cannot be "
            f'reached): {_line(error)}. Where it can be: python -c "from datasets import load_dataset; '
            f"load_dataset('{self.repository}'{config})\""
        )


Source = Path | HubData


def source_of(name: str, option: str) -> Source:
    """Find what the user named: a file, by path or as `package://module/path`, or a data set of the hub.

    Of the hub nothing is asked yet. `option` is the one that the name was given to, for the text of the error. Raises
    InputError if there is no such file, or the name of a data set is none.
    """
    if not name.startswith(SCHEME):
        return resolve_path(name, option)
    repository, _, query = name.removeprefix(SCHEME).partition("?")
    given = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII) or ".." in repository:
        raise InputError(f"{option}: {name} names no data set of the hub. Expected {_EXPECTED}")
    for key, value in given:
        if key not in _QUERY or not value:
            raise InputError(
                f"{option}: {name}: {key!r} is no option of a data set, or has no value.{did_you_mean(key, _QUERY)} "
                f"Expected {_EXPECTED}"
            )
    return HubData(name, repository, dict(given))


def origin_of(source: Source) -> str:
    """Say which commit of a data set of the hub was read, as a sentence goes on; nothing of a file."""
    return f", of {source} at commit {source.commit}" if isinstance(source, HubData) else ""


def _line(error: Exception) -> str:
    """Give another library's error on one line: the second has what is allowed."""
    return printable(" ".join((str(error).strip() or type(error).__name__).split())[:300])
