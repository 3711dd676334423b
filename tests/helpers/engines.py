"""A tiny model that a vLLM server takes, and real servers of it."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch
from conftest import TEXTS, make_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from isara_pl.generation.serving import Wanted, server_command

# beside what a run asks for: quickly up, with little memory
FLAGS = ("--max-num-seqs", "16", "--enforce-eager")
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def make_served(folder: Path, seed: int = 0) -> str:
    """Make a tiny Llama with a head size that vLLM's attention on a CPU takes (32), which says words and ends."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=0, pad_token_id=1, bos_token_id=0,
        initializer_range=0.2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    texts = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    words = [token for token, text in enumerate(texts) if text[:1] == " " and text[1:].isalpha() and len(text) > 2]
    # a direction that all hidden states share makes words, and the end, likely
    shared = torch.nn.functional.normalize(torch.randn(64), dim=0)
    with torch.no_grad():
        model.model.embed_tokens.weight += 3 * shared
        states = model.model(tokenizer(TEXTS[0], return_tensors="pt").input_ids).last_hidden_state[0].mean(dim=0)
        model.lm_head.weight[words] += 3.0 * states / states.norm() ** 2
        model.lm_head.weight[tokenizer.eos_token_id] += 5.0 * states / states.norm() ** 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class RealServer:
    """A vLLM server on one core, as `isara-pl serve` starts it; started anew whenever it is gone, until it is stopped.

    Args:
        python: The interpreter of an environment with vLLM.
        wanted: What the run asks of it.
        core: Which core it computes on.
        log: File for what it says.
    """

    def __init__(self, python: str, wanted: Wanted, core: int, log: Path) -> None:
        self._log = log
        self._stopped = threading.Event()
        self.starts = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        variables, words = server_command(wanted, python, self.port)
        self._command = [*words, *FLAGS]
        self._environment = {**os.environ, **variables, **ENVIRONMENT, "VLLM_CPU_OMP_THREADS_BIND": str(core)}
        self._start()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Return when it answers."""
        for _ in range(1200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            time.sleep(0.25)
        raise TimeoutError(f"no server after five minutes: {self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        """Kill all of its processes, and return when it is started anew."""
        self._and_wait(lambda: os.killpg(self._process.pid, signal.SIGKILL))

    def kill_worker(self) -> None:
        """Kill the process that computes, not the one that listens."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        self._and_wait(lambda: os.kill(workers[0], signal.SIGKILL))

    def _and_wait(self, end: Callable[[], None]) -> None:
        starts = self.starts
        end()
        while self.starts == starts:
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it for good."""
        self._stopped.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _start(self) -> None:
        self.starts += 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._process.wait()
            with contextlib.suppress(ProcessLookupError):  # what it started
                os.killpg(self._process.pid, signal.SIGKILL)
            if not self._stopped.is_set():
                self._start()
