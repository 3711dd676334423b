"""What others get of a run: data set, cards, and nothing that they should not see."""

import json
import shutil
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from conftest import make_model
from datasets import load_dataset
from filelock import FileLock
from huggingface_hub import HfApi
from jinja2 import StrictUndefined, Template
from markdown_it import MarkdownIt
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig

from isara_pl.cli.commands import run_command
from isara_pl.errors import InputError
from isara_pl.export.finished_run import read_run
from isara_pl.growth.prompts import FormatName, prompt_format
from isara_pl.growth.samples import Sample
from isara_pl.models.loading import load_tokenizer
from isara_pl.training.pairs import encode_pair

PARTS = ("adapter", "model", "dataset")


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    """Make an error of a name that the cards' template is not given, which the hub's cards show as nothing."""
    monkeypatch.setattr("jinja2.Template", partial(Template, undefined=StrictUndefined))


@pytest.fixture(scope="module")
def exported(undisturbed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "export"
    run_command("export", [str(undisturbed), f"--to={folder}", "--license=apache-2.0"])
    return folder


@pytest.fixture
def copied(undisturbed, tmp_path) -> Path:
    """Give a copy of a run, to be changed."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def card(folder: Path) -> tuple[dict, str]:
    """Give the front matter and the body of a card."""
    _, fields, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(fields), body


def change(run: Path, section: str, **options) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[section] |= options
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_data_set_loads_with_the_texts_that_were_trained_on(exported, undisturbed, tmp_path):
    pairs = load_dataset(str(exported / "dataset"), split="train", cache_dir=str(tmp_path)).to_list()
    turns = load_dataset(str(exported / "dataset"), "messages", split="train", cache_dir=str(tmp_path)).to_list()
    pool = lines(undisturbed / "pool.jsonl")
    assert len(pool) == len(pairs) == len(turns) == 20
    for sample, pair, turn in zip(pool, pairs, turns, strict=True):
        assert pair["prompt"] == f"Question: {' '.join(sample['question'].split())}\nAnswer:"
        assert pair["completion"] == f" {' '.join(sample['answer'].split())}"
        said = [("user", sample["question"]), ("assistant", sample["answer"])]
        assert [(message["role"], message["content"]) for message in turn["messages"]] == said
        for row in (pair, turn):
            assert row["trained_on"]
            for name in ("id", "outer_epoch", "category", "question_demonstrations", "answer_demonstrations"):
                assert row[name] == sample[name]
            assert {score["filter"]: score["figure"] for score in row["scores"]} == sample["scores"]
    # the same again for those who read JSONL
    assert lines(exported / "dataset/prompt_completion.jsonl") == pairs
    assert lines(exported / "dataset/messages.jsonl") == turns


@pytest.mark.parametrize("name", get_args(FormatName))
def test_prompt_and_completion_are_encoded_as_the_run_encoded_them(copied, tiny_llama, tmp_path, name):
    change(copied, "data", prompt_format=name)
    pool = lines(copied / "pool.jsonl")
    pool[1]["answer"] = "It ends <|end|> here."  # what spells a control token is text
    (copied / "pool.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in pool))
    run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export/model")
    own = load_tokenizer(tiny_llama)
    pairs = lines(tmp_path / "export/dataset/prompt_completion.jsonl")
    for sample, pair in zip(pool, pairs, strict=True):
        trained_on = encode_pair(Sample.from_json(json.dumps(sample)), prompt_format(name, own), own, 512, end=False)
        ids = tokenizer(pair["prompt"] + pair["completion"]).input_ids
        assert ids == trained_on.input_ids or sample is pool[1]
    assert pairs[1]["completion"].strip() == "It ends <\u2060|end|> here."
    assert "In 1 of the pairs" in card(tmp_path / "export/dataset")[1]


def test_the_cards_say_what_it_is_and_how_it_came_to_be(exported, undisturbed):
    seeds_hash = json.loads((undisturbed / "conditions.json").read_text())["data.seeds"].split()[-1]
    for part in PARTS:
        fields, body = card(exported / part)
        assert fields["license"] == "apache-2.0"
        assert "base_model" not in fields, "a folder of this machine is no hub id"
        for said in (seeds_hash, "2401.06785", "not checked by people", "fine-tuning on the seeds", "transformers 5"):
            assert said in body
    assert card(exported / "model")[0]["library_name"] == "transformers"
    assert card(exported / "adapter")[0]["library_name"] == "peft"
    assert card(exported / "dataset")[0]["size_categories"] == ["n<1K"]
    row = (undisturbed / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert f" {float(row[1]):.4f} |" in card(exported / "model")[1], "the answer NLL of the last outer epoch"


def test_the_card_of_a_baseline_does_not_speak_of_pairs_that_a_model_wrote(copied, tmp_path):
    change(copied, "data", candidates_per_outer_epoch=0)
    seeds = [sample for sample in lines(copied / "pool.jsonl") if sample["outer_epoch"] == 0]
    (copied / "pool.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    (copied / "rejected.jsonl").unlink()
    run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])
    for part in PARTS:
        fields, body = card(tmp_path / "export" / part)
        assert "fine-tuned on the seeds alone" in body
        assert "not checked by people" not in body
        assert "synthetic" not in fields["tags"]


@pytest.mark.parametrize(
    ("objective", "of_data", "said"),
    [
        (
            *("distill", {"distill_on": "generated", "teacher": "current", "teacher_demonstrations": True}),
            "from the accepted pairs, the adapter learned a teacher's distributions alone. The teacher was this model "
            "with its `current` weights, with demonstrations",
        ),
        (
            *("sft+distill", {"distill_on": "seeds", "teacher": "pretrained", "teacher_demonstrations": False}),
            "from the seeds, the adapter learned a teacher's distributions beside the answers. The teacher was this "
            "model with its `pretrained` weights, without demonstrations",
        ),
        (
            *("distill", {"distill_on": "file", "teacher": "current", "teacher_demonstrations": True}),
            "whose questions were given and not written by the model, the adapter learned",
        ),
    ],
)
def test_the_cards_of_a_distilled_run_name_objective_and_teacher(copied, tmp_path, objective, of_data, said):
    change(copied, "model", objective=objective)
    change(copied, "data", **of_data)
    run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])
    for part in PARTS:
        body = card(tmp_path / "export" / part)[1]
        assert f"The objective was `{objective}`, context distillation: from" in body
        assert said in body
        assert "fine-tuned on seeds and accepted pairs" not in body
        assert f"| `model.objective` | `{objective}` |" in body
        assert f"| `data.teacher` | `{of_data['teacher']}` |" in body


def test_the_cards_of_a_run_without_a_teacher_name_none(exported):
    for part in PARTS:
        body = card(exported / part)[1]
        assert "teacher was" not in body
        assert "| `model.objective` | `sft` |" in body


@pytest.mark.parametrize("part", ["model", "dataset"])
def test_the_code_of_a_card_works_as_it_stands_there(exported, tmp_path, monkeypatch, part):
    monkeypatch.chdir(exported)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    said, made = StringIO(), {}
    with redirect_stdout(said):
        exec(card(exported / part)[1].split("```python\n")[1].split("```")[0], made)
    assert said.getvalue().strip() if part == "model" else len(made["trained_on"]) == 20


def test_no_file_names_a_folder_of_this_machine(exported, undisturbed, tiny_llama, tiny_encoder):
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert len(files) >= 14
    for path in files:
        for folder in (exported, undisturbed, tiny_llama, Path(tiny_encoder).parent, Path.home()):
            assert str(folder).encode() not in path.read_bytes(), path
    config = json.loads((exported / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == Path(tiny_llama).name


def test_a_second_export_is_the_same_byte_for_byte(exported, undisturbed, tmp_path):
    run_command("export", [str(undisturbed), f"--to={tmp_path / 'again'}", "--license=apache-2.0"])
    files = sorted(path.relative_to(exported) for path in exported.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "again") for path in tmp_path.rglob("*") if path.is_file())
    assert all((exported / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_a_model_of_the_hub_is_named_and_taken_from_the_cache_only(copied, tiny_llama, tmp_path, monkeypatch):
    cache = tmp_path / "cache/models--me--tiny"
    shutil.copytree(tiny_llama, cache / "snapshots/abc")
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    change(copied, "model", name="me/tiny")
    run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])
    fields, body = card(tmp_path / "export/adapter")
    assert (fields["base_model"], fields["base_model_relation"]) == ("me/tiny", "adapter")
    assert "license" not in fields
    assert "None was given" in body
    config = json.loads((tmp_path / "export/adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/tiny"
    change(copied, "model", name="me/another")
    with pytest.raises(InputError, match="neither a folder here nor in the hub's cache"):
        run_command("export", [str(copied), f"--to={tmp_path / 'another'}"])


def test_options_of_generation_that_transformers_does_not_save_are_kept(copied, tmp_path):
    change(copied, "model", prediction_sampling={"do_sample": False, "generation_config": {"min_p": 0.1}})
    run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])
    assert GenerationConfig.from_pretrained(tmp_path / "export/model").min_p == 0.1


HOSTILE = "x|<img src=x onerror=alert(1)>`<b>`[a](javascript:b)| ---\u202e"


def test_what_files_and_models_say_stays_text_in_the_cards(copied, tiny_encoder, tmp_path):
    model = make_model(tmp_path / HOSTILE)
    shutil.rmtree(copied / "checkpoints")
    change(copied, "model", name=model)
    change(copied, "data", encoder=f"/models/{HOSTILE}")
    pool = lines(copied / "pool.jsonl")
    for sample in pool:
        sample |= {"category": f"---\nlicense: mit\n{HOSTILE}", "question": f"{HOSTILE}\n---\n# Why", "answer": HOSTILE}
    (copied / "pool.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in pool))
    taken = {"filter": f"a\n\n<script>\n# {HOSTILE}", "figure": 0.9, "reason": HOSTILE}
    (copied / "rejected.jsonl").write_text(json.dumps({**pool[-1], **taken}) + "\n")
    metrics = (copied / "metrics.csv").read_text()
    (copied / "metrics.csv").write_text(metrics.replace("mc_not_finite", f"# {HOSTILE}"))
    run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])
    for part in PARTS:
        fields, body = card(tmp_path / "export" / part)
        assert "license" not in fields
        tokens = MarkdownIt("commonmark").enable("table").parse(body)
        inside = [child for token in tokens for child in token.children or []]
        assert not {token.type for token in [*tokens, *inside]} & {"html_inline", "html_block", "hr", "image"}
        links = {token.attrs["href"] for token in inside if token.type == "link_open"}
        assert links == {"https://arxiv.org/abs/2401.06785"}
        assert "\u202e" not in body
        compile(body.split("```python\n")[1].split("```\n")[0], part, "exec")
    assert lines(tmp_path / "export/dataset/messages.jsonl")[0]["category"] == pool[0]["category"]


@pytest.mark.parametrize(
    ("train_on", "start_from", "trained", "expected"),
    [
        ("all", "latest", {1: 14, 2: 20}, {0, 1, 2}),
        ("all", "latest", {1: 14, 2: 0}, {0, 1}),  # the α rule ended outer epoch 2
        ("newest", "latest", {1: 14, 2: 14}, {0, 1, 2}),
        ("newest", "base", {1: 14, 2: 14}, {0, 2}),  # the adapter was made anew in outer epoch 2
    ],
)
def test_a_pair_is_marked_by_whether_the_adapter_was_trained_on_it(copied, train_on, start_from, trained, expected):
    change(copied, "data", train_on=train_on)
    change(copied, "model", start_from=start_from)
    rows = "".join(f"{outer_epoch},{count}\n" for outer_epoch, count in trained.items())
    (copied / "metrics.csv").write_text(f"outer_epoch,trained_on\n{rows}")
    run = read_run(copied)
    assert {sample.outer_epoch for sample in run.samples if sample.id in run.trained_on} == expected


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_weight(run: Path) -> None:
    path = run / "adapter/adapter_model.safetensors"
    weights = load_file(path)
    del weights[min(weights)]
    save_file(weights, path)


def other_base(run: Path) -> None:
    change(run, "model", name=make_model(run.parent / "other", seed=1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "is no folder"),
        (lambda run: shutil.rmtree(run / "adapter"), "no adapter/, so there is no trained model"),
        (lambda run: (run / "config.yaml").unlink(), "no config.yaml, so no `fit` was run there"),
        (lambda run: (run / "metrics.csv").unlink(), "metrics.csv is missing"),
        (lambda run: (run / "config.yaml").write_text("model: {name: ["), r"config.yaml: cannot be read"),
        (lambda run: change(run, "model", name=3), "`model.name` is 3, but must be str"),
        (lambda run: change(run, "data", prompt_format="xml"), "allowed: qa, chat, safe-rlhf"),
        (lambda run: change(run, "model", prediction_sampling={"top_q": 1}), "`model.prediction_sampling`: .*top_q"),
        (lambda run: (run / "metrics.csv").write_text("outer_epoch,mc2\n1,high\n"), r"metrics.csv:2: damaged row"),
        (lambda run: (run / "metrics.csv").write_text("outer_epoch,mc2\n0,0.5\n"), "says that nothing was trained"),
        (lambda run: (run / "pool.jsonl").write_text('{"id": 3}\n'), r"pool.jsonl:1: damaged line"),
        (
            lambda run: (run / "pool.jsonl").write_text('{"id": "a", "question": "\\ud800", "answer": "b"}\n'),
            r"pool.jsonl:1: damaged line",
        ),
        (lambda run: (run / "rejected.jsonl").write_text("{}\n"), r"rejected.jsonl:1: damaged line"),
        (lambda run: cut(run / "adapter/adapter_model.safetensors"), "adapter: no LoRA adapter that loads"),
        (lambda run: cut(run / "adapter/adapter_config.json"), "adapter: no LoRA adapter that loads"),
        (lose_a_weight, "adapter: its weights are not those of its config"),
        (lambda run: cut(run / "checkpoints/last.ckpt"), "last.ckpt is damaged"),
        (lambda run: change(run, "model", name="./gone"), "model.name: no such file or folder: ./gone"),
        (other_base, "are not those that this run began with"),
    ],
)
def test_a_run_that_cannot_be_exported_is_refused_with_one_message(copied, tmp_path, damage, message):
    damage(copied)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=message):
        run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing is left"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to={run}"], "is there already, and is not an empty folder"),
        (["--to=."], "the folder that this was started in"),
        (["--to=new", "--license=my own: x"], "--license: 'my own: x' is no licence id"),
        (["--to=new", "--push=mine"], "--push: 'mine' names no repository"),
        (["--to=new", "--push=me/a--b"], "names no repository"),
    ],
)
def test_options_are_refused_before_anything_is_loaded(undisturbed, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        run_command("export", [str(undisturbed), *(argument.format(run=undisturbed) for argument in arguments)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_run_writes_into_is_refused(copied, tmp_path):
    with FileLock(copied / "run.lock"), pytest.raises(InputError, match="a process is writing into"):
        run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])


def test_an_export_that_fails_half_way_leaves_nothing_and_the_next_one_is_whole(undisturbed, tmp_path, monkeypatch):
    (tmp_path / "export").mkdir()  # an empty folder may be there
    (tmp_path / ".export-unfinished/model").mkdir(parents=True)  # of an export that was killed
    (tmp_path / ".export-unfinished/model/old").touch()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("isara_pl.export.exporting.write_pairs", full)
        with pytest.raises(InputError, match="could not be written: No space left on device"):
            run_command("export", [str(undisturbed), f"--to={tmp_path / 'export'}"])
    assert [*tmp_path.rglob("*")] == [tmp_path / "export"]
    run_command("export", [str(undisturbed), f"--to={tmp_path / 'export'}"])
    assert {path.name for path in tmp_path.iterdir()} == {"export"}
    assert {path.name for path in (tmp_path / "export").iterdir()} == set(PARTS)


def test_push_uploads_each_part_into_a_private_repository_and_the_cards_name_them(
    undisturbed, tmp_path, monkeypatch, capsys
):
    done = []

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        done.append((repo_id, repo_type, private))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id, repo_type, folder_path, commit_message, delete_patterns):
        assert delete_patterns == "*", "weights of an earlier push would be loaded in place of these"
        done.append((repo_id, repo_type, folder_path))

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    run_command("export", [str(undisturbed), f"--to={tmp_path / 'export'}", "--push=me/aligned"])
    parts = (("me/aligned", "model"), ("me/aligned-adapter", "adapter"), ("me/aligned-data", "dataset"))
    types = {"model": "model", "adapter": "model", "dataset": "dataset"}
    assert done[:3] == [(name, types[part], True) for name, part in parts]
    assert done[3:] == [(name, types[part], tmp_path / "export" / part) for name, part in parts]
    fields, body = card(tmp_path / "export/model")
    assert fields["datasets"] == ["me/aligned-data"]
    assert "place = 'me/aligned'" in body
    assert "pushed: https://hub/me/aligned-data" in capsys.readouterr().out


def test_a_push_that_fails_says_how_to_do_it_and_leaves_the_export(undisturbed, tmp_path):
    with pytest.raises(InputError, match=r"The export in .* is whole") as raised:  # the tests are offline
        run_command("export", [str(undisturbed), f"--to={tmp_path / 'export'}", "--push=me/aligned"])
    assert f"hf upload me/aligned-data {tmp_path / 'export/dataset'} . --repo-type dataset" in str(raised.value)
    assert {path.name for path in (tmp_path / "export").iterdir()} == set(PARTS)


def test_the_figures_of_an_export_are_those_of_its_adapter(copied, tmp_path):
    saved = torch.load(copied / "checkpoints/epoch=1.ckpt", weights_only=True)["state_dict"]
    adapter = copied / "adapter/adapter_model.safetensors"
    save_file(saved, adapter)  # as a kill after the second outer epoch's row and before its adapter leaves it
    run_command("export", [str(copied), f"--to={tmp_path / 'export'}"])
    assert "outer epoch 1" in card(tmp_path / "export/adapter")[1]
    assert "outer epoch 2" not in card(tmp_path / "export/adapter")[1]
    rows = lines(tmp_path / "export/dataset/prompt_completion.jsonl")
    assert {row["outer_epoch"] for row in rows if row["trained_on"]} == {0, 1}
    save_file({name: weight + 1 for name, weight in saved.items()}, adapter)
    with pytest.warns(UserWarning, match=r"are those of no row of metrics\.csv"):
        assert list(read_run(copied).figures) == [0]
