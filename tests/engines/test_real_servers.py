"""Real vLLM servers on CPUs write a run: the same files whatever is killed. `make test-engines` runs this."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import make_encoder, run_config, write_held_out, write_seeds
from helpers.engines import RealServer, make_served
from safetensors.torch import load_file

from isara_pl.generation.serving import wanted_by

PYTHON = os.environ.get("ISARA_PL_VLLM")  # the interpreter of an environment with vLLM
pytestmark = [pytest.mark.engines, pytest.mark.skipif(not PYTHON, reason="ISARA_PL_VLLM names no environment")]
PATIENCE = 150  # seconds; a server is back after 30
LIMIT = 2 * PATIENCE  # of a run whose servers are killed
OBJECTIVES = ("sft", "distill")
KILLS = int(os.environ.get("ISARA_PL_ENGINE_KILLS", "20"))


class Runs:
    """Runs of a tiny model against two servers."""

    def __init__(self, folder, servers):
        self.folder, self.servers = folder, servers
        self.undisturbed, self.started = {}, []
        self.options = [f"--config={folder / 'run.yaml'}", "--model.generator=vllm", "--trainer.logger=false"]
        self.options += [f"--model.generator.urls=[{','.join(server.url for server in servers)}]"]
        self.options += [f"--model.generator.patience={PATIENCE}", f"--model.generator.timeout={PATIENCE}"]

    def start(self, objective, name, *more):
        command = [sys.executable, "-m", "isara_pl", "fit", *self.options, f"--model.objective={objective}"]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([*command, f"--run_dir={self.folder / name}", *more], stdout=log, stderr=log)
        self.started.append(process)
        return process

    def finish(self, process, name):
        assert process.wait(LIMIT) == 0, (self.folder / f"{name}.log").read_text()[-4000:]
        return self.folder / name

    def whole(self, objective):
        """Give the folder of an undisturbed run."""
        if objective not in self.undisturbed:
            self.undisturbed[objective] = self.finish(self.start(objective, objective), objective)
        return self.undisturbed[objective]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    model = make_served(folder / "model")
    encoder, files = make_encoder(folder), (write_seeds(folder), write_held_out(folder))
    filters = [{"class_path": "isara_pl.callbacks.NearDuplicate"}]
    config = run_config(
        model, encoder, *files, filters, candidates_per_outer_epoch=12, candidates_per_batch=3, top_logprobs=16
    )
    config["model"] |= {"learning_rate": 0.02, "objective": "distill"}
    config |= {"alpha_stopping": {"alpha": 0}, "seed_everything": 3}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    wanted = wanted_by(config, "run.yaml", "32-true")
    servers = [RealServer(PYTHON, wanted, core, folder / f"server{core}.log") for core in (0, 1)]
    try:
        for server in servers:
            server.wait()
        runs = Runs(folder, servers)
        yield runs
        for process in runs.started:  # after a test that failed
            process.kill()
    finally:
        for server in servers:
            server.stop()


def assert_same(run_dir, undisturbed):
    names = ["pool.jsonl", "rejected.jsonl", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"]
    names += sorted(f"teacher/{path.name}" for path in (undisturbed / "teacher").glob("*"))
    assert [name for name in names if (run_dir / name).read_bytes() != (undisturbed / name).read_bytes()] == []
    for folder in ("teacher", "adapter"):
        of_both = [sorted(path.name for path in (one / folder).glob("*")) for one in (run_dir, undisturbed)]
        assert of_both[0] == of_both[1]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_outer_epochs_are_written(runs, objective):
    whole = runs.whole(objective)
    assert len((whole / "pool.jsonl").read_text().splitlines()) > 8 + 6
    assert bool(list((whole / "teacher").glob("*"))) == (objective == "distill")
    log = (runs.folder / f"{objective}.log").read_text()
    for which in ("without adapter", "with the adapter"):
        assert f"{which}: a log-probability differs from ours by" in log


def test_nothing_is_lost_or_doubled_whatever_is_killed(runs):
    """Kills at random moments: of the run, of a server, and of a server's worker."""
    draw = random.Random(0)
    kills = [*["server"] * 4, *["worker"] * 2, *["run"] * 14]
    draw.shuffle(kills)
    kills = kills[:KILLS]
    of_servers = len(kills) - kills.count("run")
    number = 0
    while kills:
        objective = OBJECTIVES[number % 2]
        number += 1
        whole, name = runs.whole(objective), f"killed-{number}"
        process, more = runs.start(objective, name), ["--ckpt_path=last"]
        while kills:
            for server in runs.servers:
                server.wait()  # a run that only waits for a server has nothing to lose
            # some batches from now, and then any moment: also in training, or at the end
            wait_for_more(process, runs.folder / name, draw.choice([0, 3, 6, 9]))
            time.sleep(draw.uniform(0, 3))
            if process.poll() is not None:  # it was over before
                break
            if kills[-1] == "run":
                process.send_signal(signal.SIGKILL)
                process.wait()
                assert_begins_like(runs.folder / name, whole)
                process = runs.start(objective, name, *more)
            else:
                server = draw.choice(runs.servers)
                server.kill() if kills[-1] == "server" else server.kill_worker()
            print(f"{kills.pop()} of {name} ({objective}) killed with {lines(runs.folder / name)} lines", flush=True)
        assert_same(runs.finish(process, name), whole)
    assert sum(server.starts - 1 for server in runs.servers) == of_servers


def lines(run_dir):
    """Give how many seeds and candidates the journal of a run holds."""
    files = [run_dir / name for name in ("pool.jsonl", "rejected.jsonl")]
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def wait_for_more(process, run_dir, more):
    """Return when a run has written so many lines more, or is over."""
    wanted, until = lines(run_dir) + more, time.monotonic() + LIMIT
    while lines(run_dir) < wanted and process.poll() is None:
        assert time.monotonic() < until, f"{run_dir} hangs"
        time.sleep(0.05)


def assert_begins_like(run_dir, whole):
    for name in ("pool.jsonl", "rejected.jsonl"):
        if (run_dir / name).exists():
            journalled = (run_dir / name).read_bytes().rpartition(b"\n")[0]
            assert (whole / name).read_bytes().startswith(journalled)


def test_two_processes_with_a_sharded_base_write_what_one_with_a_whole_one_does(runs):
    """Candidates are the servers', in shares; training, teaching and measuring are all processes' in step."""
    objective, name = "distill", "sharded"
    whole = runs.whole(objective)
    two = ["--trainer.strategy=adapter_fsdp", "--trainer.devices=2"]
    process = runs.start(objective, name, *two)
    wait_for_more(process, runs.folder / name, 8 + 15)  # seeds, and candidates into the second outer epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(8)  # until the second process has noticed
    sharded = runs.finish(runs.start(objective, name, *two, "--ckpt_path=last"), name)
    first = [line for line in (whole / "pool.jsonl").read_text().splitlines() if '"outer_epoch": 1' in line]
    assert first
    assert [line for line in (sharded / "pool.jsonl").read_text().splitlines() if '"outer_epoch": 1' in line] == first
    weights = [load_file(each / "adapter/adapter_model.safetensors") for each in (sharded, whole)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.isfinite(weight).all() for weight in weights[0].values())
    assert len((sharded / "metrics.csv").read_text().splitlines()) == 1 + 3
