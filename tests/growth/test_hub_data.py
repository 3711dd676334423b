"""Data sets of the hub, read from what `datasets` keeps of them: no test asks a hub."""

import json
import subprocess
import sys
from importlib.util import find_spec

import datasets
import pytest
from conftest import make_seeds
from helpers.command_line import fails, fit
from helpers.hub import COMMIT, cached_data_set
from huggingface_hub import constants

from isara_pl.errors import InputError
from isara_pl.growth import hub_data
from isara_pl.growth.hub_data import source_of
from isara_pl.growth.samples import read_questions, read_samples

NAME = "hf://me/Tea-Pairs"
SPLITS = {
    "train": {"Frage": ["Why?", "Who?"], "answer": ["So.", "Me."], "picture": [[1], [2]]},
    "test": {"question": ["When?"], "answer": ["Now."]},
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path / "datasets"


@pytest.fixture
def cached(cache):
    cached_data_set(cache, "me/Tea-Pairs", dict.fromkeys(("train", "test"), SPLITS["train"]))


def pairs(name: str, **named) -> list[tuple[str, str]]:
    return [(sample.question, sample.answer) for sample in read_samples(source_of(name, "data.seeds"), **named)]


def refused(name: str) -> str:
    with pytest.raises(InputError) as error:
        pairs(name)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.usefixtures("cached")
def test_a_split_is_read_from_the_cache_with_its_own_names_or_those_of_all_files():
    assert pairs(f"{NAME}?split=train&columns=question=Frage") == [("Why?", "So."), ("Who?", "Me.")]
    assert pairs(f"{NAME}?split=test[1:]", columns={"question": "frage"}) == [("Who?", "Me.")]
    assert source_of(f"{NAME}?split=train", "x").commit == COMMIT
    assert pairs(f"{NAME}?split=train[:1]&columns=question=Frage&revision={COMMIT}") == [("Why?", "So.")]


def test_the_only_split_labels_by_name_and_a_configuration(cache):
    table = {"question": ["Why?"], "answer": ["So."]}
    cached_data_set(cache, "me/one", {"train": table})
    assert pairs("hf://me/one") == [("Why?", "So.")]
    for config in ("big", "small"):
        cached_data_set(cache, "me/two", {"train": {**table, "answer": [config]}}, config)
    assert pairs("hf://me/two?config=small") == [("Why?", "small")]
    assert "'big', 'small'" in refused("hf://me/two?config=smal")
    label = datasets.Features({"question": datasets.Value("string"), "category": datasets.ClassLabel(names=["a", "b"])})
    named = datasets.Dataset.from_dict({"question": ["Why?"], "category": [1]}, features=label)
    cached_data_set(cache, "me/labels", {"train": named})
    assert read_questions(source_of("hf://me/labels", "x"))[0].category == "b"


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "which split? Allowed: 'train', 'test', as in hf://me/Tea-Pairs?split=train"),
        ("?split=trian", "no split is named 'trian'. Did you mean train? Allowed: 'train', 'test'"),
        ("?split=train[:x]", "split 'train[:x]' cannot be read"),
        ("?split=train&columns=question=Frgae", "no column is named 'Frgae'. Did you mean Frage? There are 'Frage'"),
        ("?split=train", ": row 1: no question field among 'answer'"),
        (
            f"?split=train&revision={'a' * 40}",
            f"revision {'a' * 40} cannot be had; the latest in the cache here is {COMMIT}",
        ),
        ("?split=train&revision=v1", "revision v1 cannot be had"),
        ("?spit=train", "'spit' is no option of a data set, or has no value. Did you mean split?"),
        ("/more", "names no data set of the hub. Expected hf://OWNER/NAME?split=train"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(query, said):
    message = refused(NAME + query)
    assert message.startswith((f"{NAME}{query}:", "data.seeds: "))
    assert said in message


def test_what_is_not_there_says_how_to_get_it(cache, monkeypatch):
    message = refused("hf://me/other?config=big")
    assert "not in the cache of datasets on this machine, and the hub is not asked (HF_HUB_OFFLINE" in message
    assert "load_dataset('me/other', 'big')" in message
    monkeypatch.setattr(hub_data, "find_spec", lambda name: None if name == "datasets" else find_spec(name))
    assert "need the package datasets: pip install 'isara_pl[hub-data]'" in refused("hf://me/other")


def test_where_the_hub_can_be_reached_its_own_words_are_told_on_one_line(cache, monkeypatch):
    def gated(*arguments, **named):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'me/secret' is a gated dataset.\nAsk for access.")

    monkeypatch.setattr("isara_pl.models.hub.go_offline_where_unreachable", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset_builder", gated)
    message = refused("hf://me/secret")
    assert message.endswith("cannot be read from the hub: Dataset 'me/secret' is a gated dataset. Ask for access.")


def test_no_folder_on_this_machine_is_taken_for_the_hub_s(cache, tmp_path, monkeypatch):
    (tmp_path / "me/other").mkdir(parents=True)
    (tmp_path / "me/other/train.jsonl").write_text('{"question": "Why?", "answer": "Local."}\n')
    monkeypatch.chdir(tmp_path)
    assert "not in the cache" in refused("hf://me/other")


def test_nothing_is_imported_where_a_data_set_is_only_named():
    code = (
        "import sys; from isara_pl.growth.hub_data import source_of; source_of('hf://me/pairs?split=train', 'x');"
        "sys.exit(bool({'datasets', 'huggingface_hub', 'openpyxl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_run_goes_on_from_the_cache_and_refuses_other_pairs_with_both_commits(
    cache, options, cut_run, undisturbed, capsys
):
    same = {"question": [s.question for s in make_seeds()], "answer": [s.answer for s in make_seeds()]}
    cached_data_set(cache, "me/seeds", {"train": same})
    run_dir = cut_run(3)  # begun with a file that holds the same pairs
    of_hub = [*options, "--data.seeds=hf://me/seeds?split=train", "--ckpt_path=last"]
    fit(run_dir, of_hub)
    for name in ("pool.jsonl", "adapter/adapter_model.safetensors"):
        assert (run_dir / name).read_bytes() == (undisturbed / name).read_bytes()
    known = json.loads((run_dir / "conditions.json").read_text())["data.seeds"]
    assert known.endswith(f", of hf://me/seeds?split=train at commit {COMMIT}")
    later = "7" * 40
    cached_data_set(cache, "me/seeds", {"train": {**same, "answer": ["Other."] * 8}}, commit=later)
    error = fails(["fit", *of_hub, f"--run_dir={run_dir}"], capsys)
    assert COMMIT in error
    assert later in error
