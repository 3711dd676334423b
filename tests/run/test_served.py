"""A run whose candidates vLLM servers write: which weights write them, what is refused first, and how it goes on."""

import csv
import json
import re
import shutil

import pytest
import torch
import yaml
from conftest import run_config, write_held_out, write_seeds
from helpers.command_line import adapter, fails, fit, rows
from helpers.engines import make_served
from helpers.several_processes import on_two
from helpers.stand_in import LOADS, UNLOADS, standing_in
from safetensors.torch import load_file

from isara_pl.growth.outer_epoch import OuterEpoch


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return make_served(tmp_path_factory.mktemp("served"))


@pytest.fixture
def server(served):
    with standing_in(served) as started:
        yield started


def options_in(folder, served, encoder):
    """Give what gives the options of a run of seconds against servers."""

    def give(*servers, measured=False, **of_data):
        evaluation = {"class_path": "isara_pl.callbacks.TruthfulnessEvaluation", "init_args": {"max_new_tokens": 8}}
        callbacks = [evaluation] if measured else []
        of_data = {"candidates_per_outer_epoch": 5, "candidates_per_batch": 3, "batch_size": 4, **of_data}
        held_out = write_held_out(folder) if measured else None
        config = run_config(served, encoder, write_seeds(folder), held_out, callbacks, **of_data)
        config["model"]["learning_rate"] = 0.02
        config |= {"alpha_stopping": {"alpha": 0}}
        (folder / "run.yaml").write_text(yaml.safe_dump(config))
        urls = ",".join(server.url for server in servers)
        quick = ["--model.generator.patience=20", "--model.generator.timeout=20"]
        of_engine = ["--model.generator=vllm", f"--model.generator.urls=[{urls}]", *quick] if servers else []
        return [f"--config={folder / 'run.yaml'}", *of_engine]

    return give


@pytest.fixture
def options(served, tiny_encoder, tmp_path):
    return options_in(tmp_path, served, tiny_encoder)


@pytest.fixture(scope="module")
def whole(served, tiny_encoder, tmp_path_factory):
    """Give the folder of a run that nothing disturbed; not to be written into."""
    folder = tmp_path_factory.mktemp("whole")
    with standing_in(served) as server:
        return fit(folder / "run", options_in(folder, served, tiny_encoder)(server))


@pytest.fixture(scope="module")
def cut(served, tiny_encoder, tmp_path_factory):
    """Give the folder of a run with a server that was cut off in its only outer epoch; not to be written into."""
    folder = tmp_path_factory.mktemp("cut")
    with standing_in(served) as server, pytest.MonkeyPatch.context() as patch:
        options = options_in(folder, served, tiny_encoder)(server, outer_epochs=1)
        stopped_in(2, patch, lambda: fit(folder / "run", options))
    return folder / "run"


def written(server):
    """Give the models that wrote texts, one for each request for a candidate's question or answer."""
    return [body["model"] for body in server.completions if body.get("seed") is not None]


def loaded(server):
    return [body["lora_name"] for path, body in server.asked if path == LOADS]


def test_every_outer_epoch_is_written_with_the_adapter_of_that_moment(server, options, tmp_path):
    run_dir = fit(tmp_path / "run", options(server))
    of_first, of_second = written(server)[:10], written(server)[10:]
    assert of_first == ["base"] * 10  # a fresh adapter changes nothing
    trial, pushed = loaded(server)
    assert of_second == [pushed] * 10
    assert "-trial-" in trial
    assert list(server.adapters) == [pushed]
    assert [folder.name for folder in (run_dir / "served").iterdir()] == [pushed]
    first = torch.load(run_dir / "checkpoints/epoch=0.ckpt")["state_dict"]
    given = load_file(run_dir / "served" / pushed / "adapter_model.safetensors")
    assert given.keys() == first.keys()
    assert all(torch.equal(given[name], first[name]) for name in first)


def test_the_pretrained_model_writes_questions_where_it_is_told_to(server, options, tmp_path):
    fit(tmp_path / "run", options(server, question_writer="pretrained"))
    adapters = {name for name in loaded(server) if "-trial-" not in name}
    of_second = written(server)[10:]
    assert of_second == [*["base"] * 3, *[*adapters] * 3, *["base"] * 2, *[*adapters] * 2]


def test_a_trial_of_lightning_leaves_no_files(server, options, tmp_path):
    fit(tmp_path / "run", options(server), "--trainer.fast_dev_run=true")
    assert len(written(server)) > 0
    assert not (tmp_path / "run/served").exists()


def test_figures_are_those_of_this_process_and_the_ledger_tells_the_gap(server, options, tmp_path):
    run_dir = fit(tmp_path / "run", options(server, measured=True))
    builtin = fit(tmp_path / "builtin", options(measured=True, outer_epochs=1))
    assert rows(run_dir)[0] | {"seconds": ""} == rows(builtin)[0] | {"seconds": ""}
    with (run_dir / "ledger.csv").open() as file:
        of_outer_epochs = {row["outer_epoch"]: row for row in csv.DictReader(file) if row["stage"] == "all"}
    assert [0 < float(of_outer_epochs[number]["engine_gap"]) < 1e-3 for number in "12"] == [True, True]
    assert int(of_outer_epochs["1"]["generated_tokens"]) > 20
    with (builtin / "ledger.csv").open() as file:
        of_builtin = [row for row in csv.DictReader(file) if row["stage"] == "all"]
    assert {row["engine_gap"] for row in of_builtin} == {""}
    # other texts, and padding and sharing of its own
    ours, theirs = (float(row["flops_per_accepted"]) for row in (of_builtin[1], of_outer_epochs["1"]))
    assert 0.3 < theirs / ours < 3


@pytest.mark.parametrize(
    ("how", "more", "told"),
    [
        ({"max_rank": 2}, [], "refuses the adapter: .*LoRA rank 4 is greater than max_lora_rank 2.*lower model.lora.r"),
        ({"lora": False}, [], "takes no adapters while it runs.*--enable-lora"),
        ({"runtime_loading": False}, [], "takes no adapters while it runs.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ({"readable": False}, [], "cannot read .*/run/served/.*Give --run_dir a folder that the server's machine"),
        ({"ignores_adapters": True}, [], "does not compute what .* with the adapter.*as if there were no adapter"),
        ({"shift": 1}, [], "makes other tokens of .*serves another model"),
        ({"name": "mine"}, ["--model.generator.served_model_name=other"], "serves mine, not other"),
        ({}, ["--model.lora.targets=[q_proj,lm_head]"], "lm_head belongs to the input or output of the model"),
        ({}, ["--model.lora.targets=[q_proj,embed_tokens]"], "embed_tokens belongs to the input or output"),
        ({}, ["--data.answer_sampling.num_beams=2"], "sampling.num_beams is not to be had with model.generator vllm"),
        ({}, ["--data.question_sampling.no_repeat_ngram_size=2"], "sampling.no_repeat_ngram_size is not to be had"),
        ({}, ["--data.answer_sampling.generation_config={min_p: 0.1}"], "sampling.generation_config is not to be"),
        (
            {"max_logprobs": 20},
            ["--model.objective=distill", "--data.top_logprobs=20"],
            "data.top_logprobs is 20, for which a server has to tell .*Start it with --max-logprobs",
        ),
        ({"window": 30}, [], "does not fit into the model's window"),
    ],
)
def test_what_a_server_cannot_do_is_told_before_anything_is_generated(
    served, options, how, more, told, tmp_path, capsys
):
    with standing_in(served, **how) as server:
        error = fails(["fit", *options(server), f"--run_dir={tmp_path / 'run'}", *more], capsys)
    assert re.search(told, error.splitlines()[-1]), error
    assert written(server) == []
    lists = [tmp_path / "run" / name for name in ("pool.jsonl", "rejected.jsonl")]
    assert sum(len(path.read_text().splitlines()) for path in lists if path.exists()) in (0, 8)  # the seeds


def test_other_weights_behind_the_same_tokenizer_are_refused(served, options, tmp_path, capsys):
    other = make_served(tmp_path / "other", seed=1)
    with standing_in(other) as server:
        error = fails(["fit", *options(server), f"--run_dir={tmp_path / 'run'}"], capsys)
    assert "does not compute what this process computes without adapter: a log-probability differs by" in error
    assert "Start it with the model of model.name" in error
    assert written(server) == []


def test_a_single_outer_epoch_needs_no_adapter_on_the_server(served, options, tmp_path):
    with standing_in(served, lora=False, runtime_loading=False) as server:
        run_dir = fit(tmp_path / "run", options(server, outer_epochs=1))
    assert set(written(server)) == {"base"}
    assert (run_dir / "adapter").is_dir()


@pytest.mark.slow
def test_a_server_of_16_bits_is_within_its_own_tolerance_and_a_condition(served, options, tmp_path):
    with standing_in(served, dtype=torch.bfloat16) as server:
        run_dir = fit(tmp_path / "run", options(server))
    conditions = json.loads((run_dir / "conditions.json").read_text())
    assert conditions["model.generator"] == "vllm 0.32.0, 16 bits, 512 tokens"
    with (run_dir / "ledger.csv").open() as file:
        gaps = [float(row["engine_gap"]) for row in csv.DictReader(file) if row["engine_gap"]]
    assert all(1e-3 < gap < 0.5 for gap in gaps)  # more than float32 is allowed


# -- going on


class Killed(BaseException):
    """As hard an end as there is inside of a process."""


def stopped_in(number, monkeypatch, run):
    """Let a run end before the n-th batch of candidates is judged."""
    original, calls = OuterEpoch._judge, []

    def judge(self, *more):
        calls.append(None)
        if len(calls) == number:
            raise Killed
        return original(self, *more)

    with monkeypatch.context() as patch:
        patch.setattr(OuterEpoch, "_judge", judge)
        with pytest.raises(Killed):
            run()


def test_a_resume_finds_its_own_adapter_and_ends_as_an_undisturbed_run(server, options, whole, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    stopped_in(4, monkeypatch, lambda: fit(run_dir, options(server)))  # in the second outer epoch
    before = loaded(server)
    server.asked.clear()
    fit(run_dir, options(server), "--ckpt_path=last")
    assert [name for name in loaded(server) if "-trial-" not in name] == []
    assert set(written(server)) == {before[-1]}
    for name in ("pool.jsonl", "rejected.jsonl"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes()
    assert adapter(run_dir) == adapter(whole)


def test_a_server_that_was_started_anew_gets_the_adapter_again(server, options, whole, tmp_path, monkeypatch):
    original, calls = OuterEpoch._judge, []

    def judge(self, *more):
        calls.append(None)
        if len(calls) == 3:  # the first batch of the second outer epoch is written
            server.stop()
            server.start()
        return original(self, *more)

    monkeypatch.setattr(OuterEpoch, "_judge", judge)
    run_dir = fit(tmp_path / "run", options(server))
    pushed = [name for name in loaded(server) if "-trial-" not in name]
    assert len(pushed) >= 2
    assert len(set(pushed)) == 1
    assert (run_dir / "pool.jsonl").read_bytes() == (whole / "pool.jsonl").read_bytes()
    assert adapter(run_dir) == adapter(whole)


def test_a_worker_that_dies_while_an_adapter_comes_or_goes_is_waited_for(server, options, tmp_path):
    answer, failed = server.answer, []

    def dying(asked, *more):
        if asked in (LOADS, UNLOADS) and failed.count(asked) < 2:
            failed.append(asked)
            return 500, {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the"}}
        return answer(asked, *more)

    server.answer = dying
    fit(tmp_path / "run", options(server))
    assert len(failed) == 4
    assert len(written(server)) == 20


@pytest.mark.slow
def test_two_runs_on_one_server_do_not_unload_each_others_adapters(server, options, tmp_path):
    one, two = (fit(tmp_path / name, options(server)) for name in ("one", "two"))
    assert len(server.adapters) == 2
    # the same weights under names of their own
    assert (one / "pool.jsonl").read_bytes() == (two / "pool.jsonl").read_bytes()
    unloaded = [body["lora_name"] for path, body in server.asked if path == UNLOADS]
    assert all("-trial-" in name for name in unloaded)


@pytest.mark.parametrize(
    ("then", "now", "shown"),
    [
        ("vllm", None, '"vllm 0.32.0, float32, 512 tokens" then, "builtin" now'),
        ("builtin", {}, '"builtin" then, "vllm 0.32.0, float32, 512 tokens" now'),
        ("vllm", {"version": "0.33.0"}, "vllm 0.33.0"),
        ("vllm", {"dtype": torch.bfloat16}, "vllm 0.32.0, 16 bits"),
        ("vllm", {"window": 256}, "256 tokens"),
    ],
)
def test_a_resume_with_another_engine_is_told(served, options, cut, then, now, shown, tmp_path, monkeypatch, capsys):
    run_dir, of_base = tmp_path / "run", {"outer_epochs": 1}
    if then == "vllm":
        shutil.copytree(cut, run_dir)
    else:
        stopped_in(2, monkeypatch, lambda: fit(run_dir, options(**of_base)))
    with standing_in(served, **(now or {})) as server:
        servers = [] if now is None else [server]
        command = ["fit", *options(*servers, **of_base), f"--run_dir={run_dir}", "--ckpt_path=last"]
        error = fails(command, capsys)
    assert "model.generator: " in error
    assert shown in error


def test_a_server_may_move(server, options, cut, tmp_path):
    run_dir = shutil.copytree(cut, tmp_path / "run")
    fit(run_dir, options(server, outer_epochs=1), "--ckpt_path=last")
    assert len(written(server)) == 4  # the second batch


@pytest.mark.slow  # without servers, test_several_processes.py shows it in every suite; CI runs this one
def test_each_process_sends_its_own_part_and_the_pool_is_that_of_one(server, options, whole, tmp_path):
    done = on_two(["fit", *options(server)], tmp_path / "two")
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(written(server)) == 20
    first = [json.loads(line) for line in (tmp_path / "two/pool.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (whole / "pool.jsonl").read_text().splitlines()]
    of_first = [sample for sample in expected if sample["outer_epoch"] < 2]
    assert first[: len(of_first)] == of_first


def test_distillation_takes_what_the_server_tells(server, options, tmp_path):
    more = ["--model.objective=distill", "--data.top_logprobs=8"]
    run_dir = fit(tmp_path / "run", options(server), *more)
    asked = {body.get("logprobs") for body in server.completions if body.get("seed") is not None}
    assert None in asked  # questions
    assert max(number for number in asked if number is not None) > 8
    assert list((run_dir / "teacher").iterdir())
