"""scripts/release.py: what would be uploaded is whole, and what may not be released is refused."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# one of each kind that the package reads when it runs, and what tells type checkers that it has types
WANTED = (
    *("isara_pl/py.typed", "isara_pl/callbacks/__init__.py", "isara_pl/callbacks/alpha_stopping.py"),
    *("isara_pl/quickstart/seeds.jsonl", "isara_pl/quickstart/held_out.jsonl"),
    *("isara_pl/configs/quickstart.yaml", "isara_pl/configs/baselines/sft_seeds.yaml"),
    *("isara_pl/report/page/page.html", "isara_pl/report/page/style.css", "isara_pl/report/page/start.js"),
    *("isara_pl/report/page/overview.html", "isara_pl/export/card.md.jinja"),
)


@pytest.fixture
def release(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import release

    return release


def git(folder, *words):
    named = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *named, *words], cwd=folder, check=True, capture_output=True)


def test_sdist_and_wheel_hold_all_files_of_the_package_and_nothing_else(release, tmp_path):
    release.build(ROOT, tmp_path)
    release.check_contents(tmp_path, release.tracked(ROOT))
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert set(WANTED) <= release.contents(wheel)
    of_sdist = {
        name.replace("isara_pl/callbacks", "callbacks").replace("isara_pl/configs", "configs") for name in WANTED
    }
    assert of_sdist <= release.contents(sdist)
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = [name for name in file.namelist() if name.endswith("METADATA")]
        lines = file.read(metadata).decode().splitlines()
    assert {f"Provides-Extra: {name}" for name in ("cpu", "gpu", "quickstart")} <= set(lines)


def test_a_file_that_is_left_out_is_named(release, tmp_path):
    files = ["isara_pl/__init__.py", "isara_pl/report/page/new.js", "callbacks/__init__.py"]
    with zipfile.ZipFile(tmp_path / "isara_pl-1.0.0-py3-none-any.whl", "w") as wheel:
        for name in (
            "isara_pl/__init__.py",
            "isara_pl/callbacks/__init__.py",
            "isara_pl/old.py",
            "isara_pl-1.0.0.dist-info/RECORD",
        ):
            wheel.writestr(name, "")
    with tarfile.open(tmp_path / "isara_pl-1.0.0.tar.gz", "w:gz") as sdist:
        for name in (*files, *release.BESIDE, "PKG-INFO"):
            sdist.addfile(tarfile.TarInfo(f"isara_pl-1.0.0/{name}"), io.BytesIO())
    with pytest.raises(
        release.NotReadyError, match=r"lacks isara_pl/report/page/new\.js; holds isara_pl/old\.py, which"
    ):
        release.check_contents(tmp_path, files)


def test_what_is_not_committed_and_a_version_that_is_taken_are_refused(release, tmp_path):
    git(tmp_path, "init")
    (tmp_path / "a").touch()
    with pytest.raises(release.NotReadyError, match=r"not committed: a$"):
        release.check_files(tmp_path)
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "a")
    assert release.check_files(tmp_path).startswith("all in commit ")
    assert release.check_tag(tmp_path, "1.0.0") == "free: git tag v1.0.0"
    git(tmp_path, "tag", "v1.0.0")
    assert release.check_tag(tmp_path, "1.0.0") == "v1.0.0 is this commit"
    git(tmp_path, "commit", "--allow-empty", "-m", "b")
    with pytest.raises(release.NotReadyError, match=r"v1\.0\.0 is another commit: raise the version"):
        release.check_tag(tmp_path, "1.0.0")


@pytest.mark.parametrize("heading", ["Unreleased", "1.0.0", "0.9.0 (2026-01-31)"])
def test_a_changelog_begins_with_the_version_that_is_released_and_its_date(release, heading):
    assert release.check_changelog("# Changelog\n\n## 1.0.0 (2026-01-31)\n\n- new\n\n## 0.9.0\n", "1.0.0")
    with pytest.raises(release.NotReadyError, match=r"Wanted: ## 1\.0\.0 \(YYYY-MM-DD\)"):
        release.check_changelog(f"# Changelog\n\n## {heading}\n\n- new\n", "1.0.0")


def test_the_checklist_is_printed_whole_and_ends_with_what_is_wrong(release, monkeypatch, capsys):
    def fails(*_):
        raise release.NotReadyError("a reason")

    for name in ("check_version", "check_files", "check_tag", "build", "check_contents", "check_descriptions"):
        monkeypatch.setattr(release, name, fails if name == "check_tag" else lambda *_: "well")
    monkeypatch.setattr(release, "check_changelog", fails)
    monkeypatch.setattr("sys.argv", ["release.py", "--check"])
    with pytest.raises(SystemExit, match="is not ready to be released: tag, changelog"):
        release.main()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7
    assert printed[0] == "[x] version    well"
    assert printed[2] == "[ ] tag        a reason"
