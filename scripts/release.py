"""Check that this checkout can be released, and build what is uploaded into dist/; with --check it leaves nothing.

It tags and uploads nothing. The extra `release` brings what it builds and checks with.

    python scripts/release.py --check
"""

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

ROOT = Path(__file__).resolve().parents[1]
# folders of a checkout, and what they are in a wheel
PACKAGED = {"isara_pl/": "isara_pl/", "callbacks/": "isara_pl/callbacks/", "configs/": "isara_pl/configs/"}
# of an sdist beside those folders: what it is made from, and what setuptools writes into each
BESIDE = ("README.md", "LICENSE", "MANIFEST.in", "pyproject.toml")
MADE = re.compile(r"PKG-INFO|setup\.cfg|isara_pl\.egg-info/.*")


class NotReadyError(Exception):
    """What keeps this from being released, and what to do."""


def main() -> None:
    """Go through the checklist and print it; the exit code is 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Leave nothing in dist/.")
    arguments = parser.parse_args()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder)
        checklist: dict[str, Callable[[], str]] = {
            "version": lambda: check_version(declared),
            "files": lambda: check_files(ROOT),
            "tag": lambda: check_tag(ROOT, declared),
            "changelog": lambda: check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), declared),
            "build": lambda: build(ROOT, built),
            "contents": lambda: check_contents(built, tracked(ROOT)),
            "twine": lambda: check_descriptions(built),
        }
        wrong = [name for name, check in checklist.items() if not _passes(name, check)]
        if wrong:
            sys.exit(f"{declared} is not ready to be released: {', '.join(wrong)}")
        if not arguments.check:
            shutil.copytree(built, ROOT / "dist", dirs_exist_ok=True)
            print("to upload: twine upload dist/*")


def _passes(name: str, check: Callable[[], str]) -> bool:
    try:
        said, passed = check(), True
    except NotReadyError as error:
        said, passed = str(error), False
    print(f"[{'x' if passed else ' '}] {name:<9}  {said}", flush=True)
    return passed


def check_version(declared: str) -> str:
    """Hold the version of pyproject.toml against that which the package says of itself."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", declared):
        raise NotReadyError(f"{declared!r} in pyproject.toml is no version. Allowed: such as 0.2.0 or 0.2.0rc1")
    if version("isara_pl") != declared:
        raise NotReadyError(f"installed is {version('isara_pl')}, pyproject.toml says {declared}: install it again")
    return declared


def check_files(root: Path) -> str:
    """Refuse what is in no commit: it would be released, or lacking, without being seen."""
    changed = _git(root, "status", "--porcelain").splitlines()
    if changed:
        raise NotReadyError(f"not committed: {', '.join(line[3:] for line in changed)}")
    return f"all in commit {_git(root, 'rev-parse', '--short', 'HEAD').strip()}"


def check_tag(root: Path, declared: str) -> str:
    """Refuse a version that an earlier commit has been tagged with."""
    name = f"v{declared}"
    if name in _git(root, "tag", "--points-at", "HEAD").split():
        return f"{name} is this commit"
    if name in _git(root, "tag", "--list", name).split():
        raise NotReadyError(f"{name} is another commit: raise the version in pyproject.toml, or check that commit out")
    return f"free: git tag {name}"


def check_changelog(text: str, declared: str) -> str:
    """Ask for a heading with the version and a date, and nothing that stands above it."""
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    newest = re.fullmatch(rf"{re.escape(declared)} \(\d{{4}}-\d\d-\d\d\)", headings[0]) if headings else None
    if newest is None:
        raise NotReadyError(
            f"the first heading is {headings[0] if headings else None!r}. Wanted: ## {declared} (YYYY-MM-DD)"
        )
    return newest[0]


def build(root: Path, to: Path) -> str:
    """Build an sdist of the files that git knows, and a wheel of that sdist, with the setuptools that is here."""
    with tempfile.TemporaryDirectory() as folder:
        for name in tracked(root):
            copy = Path(folder) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy, follow_symlinks=False)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(to), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]
        raise NotReadyError(f"{said} (tools: pip install 'isara_pl[release]')")
    return ", ".join(f"{path.name} ({path.stat().st_size // 1024} KiB)" for path in sorted(to.iterdir()))


def tracked(root: Path) -> list[str]:
    """Give the files that git knows and that are there."""
    return [name for name in _git(root, "ls-files", "-z").split("\0") if name and (root / name).is_file()]


def contents(archive: Path) -> set[str]:
    """Give the files of a wheel or of an sdist, as the latter's root has them."""
    if archive.suffix == ".whl":
        with ZipFile(archive) as wheel:
            return {name for name in wheel.namelist() if not name.endswith("/")}
    with tarfile.open(archive) as sdist:
        return {member.name.partition("/")[2] for member in sdist if member.isfile()}


def check_contents(built: Path, files: list[str]) -> str:
    """Hold a wheel and an sdist against the files of the checkout: each of the package is in both, and nothing else."""
    of_package = [name for name in files if name.startswith(tuple(PACKAGED))]
    said = []
    for pattern, expected, made in (
        ("*.whl", set(map(_installed, of_package)), re.compile(r"isara_pl-[^/]+\.dist-info/.+")),
        ("*.tar.gz", {*of_package, *BESIDE}, MADE),
    ):
        archives = [*built.glob(pattern)]
        if len(archives) != 1:
            raise NotReadyError(f"{len(archives)} files {pattern} were built")
        found = {name for name in contents(archives[0]) if not made.fullmatch(name)}
        wrong = [f"lacks {name}" for name in sorted(expected - found)]
        wrong += [f"holds {name}, which git does not know there" for name in sorted(found - expected)]
        if wrong:
            raise NotReadyError(f"{archives[0].name} {'; '.join(wrong)}. See [tool.setuptools] in pyproject.toml")
        said.append(f"{archives[0].name}: {len(found)} files")
    return ", ".join(said)


def _installed(name: str) -> str:
    """Give where a file of the checkout is in a wheel."""
    (folder,) = [folder for folder in PACKAGED if name.startswith(folder)]
    return PACKAGED[folder] + name.removeprefix(folder)


def check_descriptions(built: Path) -> str:
    """Let twine read what an index would show."""
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(built.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReadyError(f"{' '.join(_plain(done.stdout + done.stderr))} (tools: pip install 'isara_pl[release]')")
    return "check passed"


def _plain(text: str) -> Iterator[str]:
    yield from (line.strip() for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines() if line.strip())


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReadyError(f"git {words[0]}: {done.stderr.strip() or 'failed'}")
    return done.stdout


if __name__ == "__main__":
    main()
