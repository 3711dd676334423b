"""What a pool depends on: a resume goes on under the same conditions, or says what changed."""

import hashlib
import inspect
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from isara_pl.errors import InputError
from isara_pl.run.files import write_whole
from isara_pl.run.notices import rank_zero_warn

FILE = "conditions.json"
CONTENT = "content of "  # begins the name of a hash of what lies at the place that an option names

OnChange = Literal["refuse", "continue"]


def check_conditions(folder: Path, now: Mapping[str, Any], on_change: OnChange) -> None:
    """Hold the conditions of this start against those under which the run folder's pool was grown so far.

    They lie in `conditions.json`. What is not there yet is added. Two places with the same content are the same, and
    one with other content than before is another. Of an option that names a place, `now` may hold a hash of what lies
    there: behind `content of ` and its name. Raises InputError if values changed, unless `continue`; the message shows
    each, as it was and as it is.
    """
    path = folder / FILE
    before = read_conditions(folder)
    plain = json.loads(json.dumps(now))  # tuples become lists, as in the file
    changed = []
    for name in [name for name in plain if name in before and not name.startswith(CONTENT)]:
        contents = before.get(CONTENT + name), plain.get(CONTENT + name)
        named_alike = before[name] == plain[name]
        if named_alike if None in contents else contents[0] == contents[1]:
            continue
        now_there = "with other files now" if named_alike else f"then, {_shown(plain[name])} now"
        changed.append(f"  {name}: {_shown(before[name])} {now_there}")
    if changed and on_change == "refuse":
        raise InputError(
            f"the pool in {folder} was grown under other conditions than those of now:\n"
            + "\n".join(changed)
            + "\nGive the values of then to continue, another --run_dir to start anew, or --data.on_change continue "
            "to keep what is there and go on with the values of now"
        )
    if changed:
        rank_zero_warn(f"{folder}: going on under changed conditions:\n" + "\n".join(changed))
    kept = {name: value for name, value in before.items() if not name.startswith(CONTENT)}
    if before != {**kept, **plain}:
        write_whole(path, json.dumps({**kept, **plain}, indent=1, ensure_ascii=False) + "\n")


def read_conditions(folder: Path) -> dict[str, Any]:
    """Read the conditions of a run folder.

    They are values by the names of their options; empty where none were written. Raises InputError if the file is
    damaged.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}). Restore it from a copy, or remove it to skip the check") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged (no object). Restore it from a copy, or remove it to skip the check")
    return found


def forget_conditions(folder: Path) -> None:
    """Remove the conditions of a start of which nothing is left."""
    (folder / FILE).unlink(missing_ok=True)


def described(filters: Iterable[object]) -> list[str]:
    """Describe filters by their class and the options that they keep under their own names."""
    described = []
    for one in filters:
        kept = {name: vars(one)[name] for name in inspect.signature(type(one)).parameters if name in vars(one)}
        options = ", ".join(f"{name}={_plain(value)}" for name, value in kept.items())
        described.append(f"{type(one).__name__}({options})")
    return described


def files_of(filters: Iterable[object]) -> dict[str, str]:
    """Give the hash of every file that an option of a filter names, such as a list of words."""
    options = [vars(one).get(name) for one in filters for name in inspect.signature(type(one)).parameters]
    every = [item for value in options for item in (value if isinstance(value, list | tuple) else [value])]
    # Path.is_file raises where a text is too long for a name
    named = sorted({str(item) for item in every if isinstance(item, str | Path) and os.path.isfile(item)})  # noqa: PTH113
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in named}


def _plain(value: Any) -> str:
    """Describe an option alike in every process; of an object, its class."""
    if isinstance(value, str | int | float | bool | Path | None):
        return repr(str(value) if isinstance(value, Path) else value)
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item) for item in value]
        return f"[{', '.join(sorted(items) if isinstance(value, set | frozenset) else items)}]"
    return type(value).__name__


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."
