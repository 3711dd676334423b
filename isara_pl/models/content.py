"""What lies where a model is: two spellings of one path, and copies, have the same."""

import hashlib
from pathlib import Path

from isara_pl.errors import InputError
from isara_pl.models.loading import is_local, resolve_path
from isara_pl.run.folder import LOCK

# what loaders read; a folder may hold notes, too
READ = (".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt")
BLOCK = 1 << 16  # bytes
BLOCKS = 1024  # of a file: in a larger one no matrix of weights lies between two of them


def content_of(name: str) -> str | None:
    """Hash a model's files: their names and sizes, and of large ones a block in every thousandth part.

    None for a hub id, which means the same everywhere, and where nothing is.
    """
    if not is_local(name):
        return None
    try:
        place = resolve_path(name, "model.name")
    except InputError:  # whoever loads it says so
        return None
    digest = hashlib.sha256()
    for file in [place] if place.is_file() else sorted(place.rglob("*")):
        if file.suffix in READ and file.is_file() and not _of_run(file, place):
            _add(digest, file, file.name if file == place else file.relative_to(place).as_posix())
    return digest.hexdigest()


def _of_run(file: Path, place: Path) -> bool:
    """Whether a file lies in a run folder inside the model's: a run writes there while it goes on."""
    return any((parent / LOCK).exists() for parent in file.parents if parent.is_relative_to(place) and parent != place)


def _add(digest: "hashlib._Hash", file: Path, name: str) -> None:
    size = file.stat().st_size
    digest.update(f"{name}\0{size}\0".encode())
    with file.open("rb") as content:
        for start in range(0, size, max(size // BLOCKS, BLOCK)):
            content.seek(start)
            digest.update(content.read(BLOCK))
