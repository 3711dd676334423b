"""Unpack, on a machine without a network, what scripts/pack_offline.py packed and someone carried there.

A package that the machine has already, in a version that suffices, stays as it is.

    python scripts/unpack_offline.py
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = "1/manifest.json"


def main() -> None:
    """Read the command line, unpack, and print what to export; the exit code is 1 where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", type=Path, default=Path("offline"), help="Holds the folders 1, 2, … (%(default)s).")
    parser.add_argument("--to", type=Path, help="Folder for packages and models; `site` beside those where not given.")
    arguments = parser.parse_args()
    site = arguments.to or arguments.packed / "site"
    missing = unpack(arguments.packed, site)
    print(f"export PYTHONPATH={ROOT}:{site.resolve()}${{PYTHONPATH:+:$PYTHONPATH}}")
    print("export HF_HUB_OFFLINE=1")
    if missing:
        sys.exit("missing, or of another version than needed: " + ", ".join(missing))


def unpack(packed: Path, site: Path) -> list[str]:
    """Put the models, and the packages that the machine lacks, into a folder for PYTHONPATH.

    A file of which nothing was carried is told and left out.

    Args:
        packed: Holds the numbered folders.
        site: The folder for PYTHONPATH.

    Returns:
        What is needed and neither on the machine nor in the folder afterwards.
    """
    if not (packed / MANIFEST).is_file():
        sys.exit(f"{packed / MANIFEST}: no such file. Carry the folder 1 too, or name what holds it with --packed")
    manifest: dict[str, Any] = json.loads((packed / MANIFEST).read_text("utf-8"))
    needs, has = manifest["needs"], versions(sys.path)
    site.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.parent) as folder:
        wheels = []
        for name, file in manifest["files"].items():
            pieces = [packed / piece for piece in file["pieces"]]
            package = parse_wheel_filename(name)[0] if name.endswith(".whl") else None
            if package and not unmet({package: needs[package]}, has):
                print(f"on this machine already: {package} {has[package]}", file=sys.stderr)
            elif not any(piece.exists() for piece in pieces):
                print(f"not carried: {', '.join(file['pieces'])}", file=sys.stderr)
            elif package:
                wheels.append(join(pieces, Path(folder) / name, file["sha256"]))
            else:
                join(pieces, site / name, file["sha256"])
        if wheels:
            how = ("--no-index", "--no-deps", "--upgrade", "--quiet", "--disable-pip-version-check")
            command = [sys.executable, "-m", "pip", "install", *how, "--target", str(site), *map(str, wheels)]
            subprocess.run(command, check=True)
    return unmet(needs, has | versions([str(site)]))


def join(pieces: Sequence[Path], to: Path, sha256: str) -> Path:
    """Write the pieces of a file as one; what is not as it was packed is refused."""
    absent = [str(piece) for piece in pieces if not piece.exists()]
    if absent:
        sys.exit(f"{to.name}: not all of it was carried. Carry {', '.join(absent)} too")
    to.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with to.open("wb") as whole:
        for piece in pieces:
            data = piece.read_bytes()
            digest.update(data)
            whole.write(data)
    if digest.hexdigest() != sha256:
        to.unlink()
        sys.exit(f"{to.name}: changed on the way. Carry {', '.join(map(str, pieces))} again")
    return to


def versions(path: Sequence[str]) -> dict[str, str]:
    """Give the version of each package in some folders, by canonical name; the first folder counts."""
    found: dict[str, str] = {}
    for package in distributions(path=list(path)):
        if package.name:  # None where an uninstall left a folder behind
            found.setdefault(canonicalize_name(package.name), package.version)
    return found


def unmet(needs: Mapping[str, str], has: Mapping[str, str]) -> list[str]:
    """Give what of the needed packages is not there, or in a version that does not suffice.

    Args:
        needs: Which versions suffice, by package.
        has: Which version is there, by package.
    """
    return [
        f"{package}{specifier}"
        for package, specifier in needs.items()
        if package not in has or not SpecifierSet(specifier).contains(has[package], prereleases=True)
    ]


if __name__ == "__main__":
    main()
