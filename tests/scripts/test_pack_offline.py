"""scripts/pack_offline.py and unpack_offline.py: made-up wheels and models on their way to another machine."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from safetensors.torch import load_file

from isara_pl.growth.retrieval import SentenceEncoder
from isara_pl.models.loading import load_tokenizer

SCRIPTS = Path(__file__).parents[2] / "scripts"
MIB = 2**20


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import pack_offline
    import unpack_offline

    return pack_offline, unpack_offline


def write_wheel(folder: Path, name: str, version: str = "1.0", requires: tuple[str, ...] = ()) -> Path:
    """Write a wheel with one module, as pip installs it."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
    files = {
        f"{name}/__init__.py": f"version = {version!r}\n",
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", *metadata]) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text.encode())}\n")
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for path, text in {**files, f"{info}/RECORD": "".join(record) + f"{info}/RECORD,,\n"}.items():
            file.writestr(path, text)
    return wheel


def write_model(folder: Path, package: str, size: int) -> bytes:
    weights = np.random.default_rng(size).bytes(size)
    (folder / package / "files").mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    (folder / package / "files/weights.bin").write_bytes(weights)
    return weights


def sizes(packed: Path) -> list[int]:
    folders = [path for path in packed.iterdir() if path.is_dir()]
    return [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in folders]


def test_what_is_packed_is_found_where_it_was_unpacked(scripts, tmp_path):
    pack, _ = scripts
    part, packed, site = tmp_path / "base", tmp_path / "offline", tmp_path / "elsewhere/site"
    write_wheel(part, "made_up_package")
    weights = write_model(part, "made_up_model", 5000)
    packed.mkdir()
    pack.fill([part], packed, MIB, {"made-up-package": ">=1"})
    command = [sys.executable, SCRIPTS / "unpack_offline.py", "--packed", packed, "--to", site]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = (
        "import made_up_package, sys; from isara_pl.models.sources import resolve_path;"
        "print(made_up_package.version, resolve_path('package://made_up_model/files/weights.bin', 'the model'))"
    )
    shell = f"{done.stdout}\n'{sys.executable}' -c \"{asked}\""
    (printed,) = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    version, path = printed.split(" ", 1)
    assert version == "1.0"
    assert Path(path) == site / "made_up_model/files/weights.bin"
    assert Path(path).read_bytes() == weights


def test_no_folder_is_larger_than_allowed_and_large_files_come_back_whole(scripts, tmp_path):
    pack, unpack = scripts
    part, packed, site = tmp_path / "base", tmp_path / "offline", tmp_path / "site"
    written = {size: write_model(part, f"model_{size}", size) for size in (3 * MIB, 700_000, 600_000, MIB)}
    packed.mkdir()
    pack.fill([part], packed, MIB, {})
    assert max(sizes(packed)) <= MIB
    assert len(sizes(packed)) == 6
    assert unpack.unpack(packed, site) == []
    for size, weights in written.items():
        assert (site / f"model_{size}/files/weights.bin").read_bytes() == weights
    pack.fill([part], packed, 8 * MIB, {})  # packed again, nothing of before is left
    assert len(sizes(packed)) == 1


@pytest.fixture
def in_pieces(scripts, tmp_path):
    """Give the folder with a model that was packed in three pieces."""
    (tmp_path / "offline").mkdir()
    write_model(tmp_path / "base", "model", 2 * MIB + 1)
    scripts[0].fill([tmp_path / "base"], tmp_path / "offline", MIB, {})
    return tmp_path / "offline"


def test_a_piece_that_changed_on_the_way_is_refused(scripts, in_pieces, tmp_path):
    (piece,) = in_pieces.rglob("*.part01")
    data = bytearray(piece.read_bytes())
    data[1000] ^= 1
    piece.write_bytes(data)
    with pytest.raises(SystemExit, match=r"weights\.bin: changed on the way. Carry .*part01"):
        scripts[1].unpack(in_pieces, tmp_path / "site")
    assert not (tmp_path / "site/model/files/weights.bin").exists()


def test_a_piece_that_was_not_carried_is_named(scripts, in_pieces, tmp_path):
    (piece,) = in_pieces.rglob("*.part02")
    piece.unlink()
    with pytest.raises(SystemExit, match=f"Carry {piece} too"):
        scripts[1].unpack(in_pieces, tmp_path / "site")


def test_what_was_not_carried_at_all_is_told_and_the_rest_unpacked(scripts, in_pieces, tmp_path, capsys):
    for piece in in_pieces.rglob("*.part*"):
        piece.unlink()
    scripts[1].unpack(in_pieces, tmp_path / "site")
    assert "not carried: 2/model/files/weights.bin.part00, 3/" in capsys.readouterr().err
    assert (tmp_path / "site/model/__init__.py").exists()


def test_without_the_first_folder_there_is_one_clear_error(scripts, tmp_path):
    with pytest.raises(SystemExit, match=r"manifest\.json: no such file. Carry the folder 1 too"):
        scripts[1].unpack(tmp_path, tmp_path / "site")


def test_a_package_that_the_machine_has_stays_unless_its_version_does_not_suffice(
    scripts, tmp_path, monkeypatch, capsys
):
    pack, unpack = scripts
    packed, site, machine = tmp_path / "offline", tmp_path / "site", tmp_path / "machine"
    packed.mkdir()
    for name, version in (("new_enough", "1.5"), ("too_old", "0.9")):
        with zipfile.ZipFile(write_wheel(tmp_path / "old", name, version)) as file:
            file.extractall(machine)
        write_wheel(tmp_path / "base", name, "2.0")
    monkeypatch.syspath_prepend(str(machine))
    pack.fill([tmp_path / "base"], packed, MIB, {"new-enough": ">=1", "too-old": ">=1", "absent": "<3,>=2"})
    assert unpack.unpack(packed, site) == ["absent<3,>=2"]  # what nobody brought
    assert "on this machine already: new-enough 1.5" in capsys.readouterr().err
    assert sorted(path.name for path in site.glob("*.dist-info")) == ["too_old-2.0.dist-info"]


def missing(scripts, folder, own, python="3.12"):
    pack, _ = scripts
    wheels = dict(map(pack.read_wheel, folder.glob("*.whl")))
    return pack.missing_of(pack.needed([Requirement(text) for text in own], wheels, python), wheels)


def test_nothing_is_missing_where_all_is_packed_or_on_the_machine(scripts, tmp_path):
    write_wheel(tmp_path, "reader", requires=("typeshed_client>=2; extra == 'signatures'", "numpy>=1"))
    write_wheel(tmp_path, "typeshed_client", "2.14")
    assert missing(scripts, tmp_path, ["reader[signatures]>=1", "torch>=2.11"]) == []


def test_a_requirement_of_a_wheel_that_is_nowhere_is_missing(scripts, tmp_path):
    write_wheel(tmp_path, "reader", requires=("Type_Shed>=2", "far>=1; extra == 'web'"))
    assert missing(scripts, tmp_path, ["reader"]) == ["type-shed>=2"]
    assert missing(scripts, tmp_path, ["reader[web]"]) == ["far>=1", "type-shed>=2"]


def test_a_version_that_does_not_suffice_is_missing(scripts, tmp_path):
    write_wheel(tmp_path, "reader", requires=("typeshed>=2",))
    write_wheel(tmp_path, "typeshed", "1.9")
    assert missing(scripts, tmp_path, ["reader<5"]) == ["typeshed>=2"]
    assert missing(scripts, tmp_path, ["reader>=1.1"]) == ["reader>=1.1", "typeshed>=2"]


def test_markers_are_those_of_the_machine_and_not_of_here(scripts, tmp_path):
    own = ["old; python_version < '3.12'", "new; python_version >= '3.12'", "win; sys_platform == 'win32'"]
    write_wheel(tmp_path, "unrelated")
    assert missing(scripts, tmp_path, own, "3.12") == ["new"]
    assert missing(scripts, tmp_path, own, "3.11") == ["old"]


def test_an_encoder_with_halved_weights_is_computed_in_float32(scripts, tiny_encoder, tmp_path):
    package = tmp_path / "encoder_package"
    shutil.copytree(tiny_encoder, package / "model")
    config = json.loads((package / "model/config.json").read_text())
    del config["dtype"]  # as in the real one: the weights' own type would count
    (package / "model/config.json").write_text(json.dumps(config))
    scripts[0].add_encoder(tmp_path / "base", package / "model")
    copy = tmp_path / "base/encoder_package/model"
    weights = load_file(copy / "model.safetensors").values()
    assert {str(weight.dtype) for weight in weights if weight.is_floating_point()} == {"torch.float16"}
    texts = ["Why is the sky blue?", "What is the largest ocean?", "Do goldfish forget?"]
    packed = SentenceEncoder(str(copy))
    np.testing.assert_allclose(packed.encode(texts), SentenceEncoder(tiny_encoder).encode(texts), atol=2e-3)
    assert {str(weight.dtype) for weight in packed._model.parameters()} == {"torch.float32"}


@pytest.mark.real
def test_the_packed_tokenizer_is_smollm2s(scripts, tmp_path):
    pack, _ = scripts
    pack.add_tokenizer(tmp_path)
    packed = load_tokenizer(str(tmp_path / pack.TOKENIZER))
    whole = load_tokenizer(pack.SMOLLM2)
    text = "Question: Why is the sky blue?\nAnswer: Air scatters it."
    assert packed(text).input_ids == whole(text).input_ids
    assert (packed.eos_token_id, packed.pad_token_id) == (whole.eos_token_id, whole.pad_token_id)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert json.loads((tmp_path / pack.TOKENIZER / "config.json").read_text())["vocab_size"] == len(whole)
