"""Two nodes, each started by a torchrun of its own on this machine: one run, in one folder that both see."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.several_processes import GREEDY, LIMIT, assert_like

from isara_pl.cli.main import main

pytestmark = pytest.mark.slow  # each starts up to six processes that import torch

# what a user's callback may do: here a process dies in the second outer epoch while the other one generates for long
DIES = """
import os, signal, time
from lightning.pytorch import Callback
from isara_pl.run import heartbeat

heartbeat.EVERY, heartbeat.PATIENCE, heartbeat._GRACE = 0.5, 4.0, 1.0

class Dies(Callback):
    def setup(self, trainer, pl_module, stage):
        own = pl_module.generate
        def generate(prompts, sampling, seeds, *more):
            if stage == "fit" and trainer.current_epoch == 2:
                if trainer.global_rank == int(os.environ["DIES"]):
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(1000)
            return own(prompts, sampling, seeds, *more)
        pl_module.generate = generate
"""


@pytest.fixture
def arguments(options, speaker):
    return ["fit", *options, *GREEDY, f"--model.name={speaker}", "--model.objective=distill"]


def on_two_nodes(arguments: list[str], run_dirs: list[Path], *more: str, **environment: str) -> list[tuple[int, str]]:
    """Run the command line on two nodes of one process; give what each ended with and said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--master_addr=127.0.0.1"]
    nodes = [
        subprocess.Popen(
            [*launcher, f"--master_port={port}", f"--node_rank={rank}", "-m", "isara_pl", *arguments]
            + [f"--run_dir={run_dir}", "--trainer.num_nodes=2", "--trainer.strategy=ddp", *more],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for rank, run_dir in enumerate(run_dirs)
    ]
    until = time.monotonic() + LIMIT
    try:
        said = [node.communicate(timeout=max(1, until - time.monotonic()))[0] for node in nodes]
    finally:
        for node in nodes:
            with suppress(ProcessLookupError):  # what it started included
                os.killpg(node.pid, signal.SIGKILL)
    return [(node.returncode, text) for node, text in zip(nodes, said, strict=True)]


@pytest.mark.parametrize("dies", ["0", "1"])
def test_a_dead_node_ends_the_other_while_it_generates_and_both_go_on_to_what_one_process_gives(
    arguments, dies, tmp_path
):
    (tmp_path / "dies.py").write_text(DIES)
    run_dirs = [tmp_path / "two"] * 2
    fatal = {"PYTHONPATH": str(tmp_path), "DIES": dies}
    killed = on_two_nodes(arguments, run_dirs, "--trainer.callbacks+=dies.Dies", **fatal)
    assert all(code != 0 for code, _ in killed)
    left = killed[1 - int(dies)][1]
    assert "process 1: ends, since " in left if dies == "0" else "process 0: ends, since process 1 has given" in left
    done = on_two_nodes(arguments, run_dirs, "--ckpt_path=last")
    assert [code for code, _ in done] == [0, 0], done
    main([*arguments, f"--run_dir={tmp_path / 'one'}"])
    assert_like(tmp_path / "two", tmp_path / "one")


def test_nodes_that_do_not_see_the_first_ones_folder_are_refused_fresh_or_resumed(arguments, tmp_path):
    apart = [tmp_path / "first", tmp_path / "second"]
    for more in ([], ["--ckpt_path=last"]):
        ended = on_two_nodes(arguments, apart, *more)
        assert all(code != 0 for code, _ in ended)
        for _, said in ended:
            assert "process 1 does not see what the first one writes into" in said
            assert "Allowed: a run_dir on a file system that all nodes share" in said
        if not more:
            main([*arguments, f"--run_dir={apart[0]}"])  # a run of one process, which only the first node sees
