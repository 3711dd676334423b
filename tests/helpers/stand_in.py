"""A stand-in for a vLLM server: the answers of `vllm 0.32.0`, in form and wording, computed by transformers and peft.

It is for faults, which a real server gives only now and then. What a real one computes, tests/engines shows.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

LOADS, UNLOADS, COMPLETES = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"


class StandIn:
    """A server that can be told to go wrong.

    Attributes:
        faults: What becomes of the next requests for completions, one each: a status, `reset`, `cut` or `late`.
        asked: Path and body of every request.
        adapters: Paths of the adapters that it knows, by their names.
    """

    def __init__(self, model: str, **how: Any) -> None:
        self.folder = model
        self.how: dict[str, Any] = {
            "version": "0.32.0", "window": 512, "max_rank": 16, "max_logprobs": 500, "runtime_loading": True,
            "lora": True, "readable": True, "ignores_adapters": False, "name": "base", "key": None,
            "dtype": torch.float32, "shift": 0, **how,
        }  # fmt: skip
        self.faults: list[Any] = []
        self.asked: list[tuple[str, Any]] = []
        self.adapters: dict[str, str] = {}
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self._models: dict[str, Any] = {"": self._base()}
        self._computing = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    def _base(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.how["dtype"]).eval()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def completions(self) -> list[Any]:
        """The bodies of all requests for completions."""
        return [body for path, body in self.asked if path == COMPLETES]

    def start(self) -> None:
        """Listen, on the same port as before; a server that was started anew knows no adapters."""
        self.adapters = {}
        self._server = _Quiet(("127.0.0.1", self.port), self._handler())
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.give(*stand_in.answer(self.path, None, self.headers))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fault = stand_in.faults.pop(0) if self.path == COMPLETES and stand_in.faults else None
                if fault in ("reset", "late"):
                    stand_in.asked.append((self.path, body))
                    time.sleep(1.5 if fault == "late" else 0)
                    self.connection.close()
                    return
                if isinstance(fault, int):
                    stand_in.asked.append((self.path, body))
                    self.give(fault, _error(fault, "made to fail"))
                    return
                status, answer = stand_in.answer(self.path, body, self.headers)
                self.give(status, answer, half=fault == "cut")

            def give(self, status: int, answer: Any, half: bool = False) -> None:
                text = answer if isinstance(answer, str) else json.dumps(answer)
                content = text.encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", text)
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if half else content)

        return Handler

    # -- answers

    def answer(self, path: str, body: Any, headers: Message) -> tuple[int, Any]:
        """Give status and content of an answer."""
        self.asked.append((path, body))
        key = self.how["key"]
        if key is not None and headers.get("Authorization") != f"Bearer {key}":
            return 401, {"error": "Unauthorized"}
        if path == "/version":
            return 200, {"version": self.how["version"]}
        if path == "/v1/models":
            own = {"id": self.how["name"], "root": self.folder, "parent": None, "max_model_len": self.how["window"]}
            loaded = [
                {"id": name, "root": root, "parent": self.how["name"], "max_model_len": None}
                for name, root in self.adapters.items()
            ]
            return 200, {"object": "list", "data": [own, *loaded]}
        if path == "/tokenize":
            ids = self.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"]).input_ids
            return 200, {"count": len(ids), "tokens": [token + self.how["shift"] for token in ids]}
        if path in (LOADS, UNLOADS) and self.how["runtime_loading"]:
            return self._load(body) if path == LOADS else self._unload(body)
        if path == COMPLETES:
            return self._complete(body)
        return 404, {"detail": "Not Found"}

    def _load(self, body: Any) -> tuple[int, Any]:
        name, path = body["lora_name"], Path(body["lora_path"])
        failed = "Call to add_lora method failed: Worker failed with error"
        if not self.how["lora"]:
            why = f"{failed} 'LoRA is not enabled. Use --enable-lora to enable LoRA.', please check"
            return 500, _error(500, why)
        if name in self.adapters:
            return 400, _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not self.how["readable"] or not (path / "adapter_config.json").exists():
            return 404, _error(404, f"Loading lora {name} failed: No adapter found for <path>")
        rank = json.loads((path / "adapter_config.json").read_text())["r"]
        if rank > self.how["max_rank"]:
            why = f"{failed} 'LoRA rank {rank} is greater than max_lora_rank {self.how['max_rank']}.', please check"
            return 500, _error(500, why)
        with self._computing:
            self._models[name] = PeftModel.from_pretrained(self._base(), path).eval()
            self.adapters[name] = str(path)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, body: Any) -> tuple[int, Any]:
        if self.adapters.pop(body["lora_name"], None) is None:
            return 404, _error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        return 200, "removed"

    def _complete(self, body: Any) -> tuple[int, Any]:
        name, asked_for = body["model"], body.get("logprobs")
        if name != self.how["name"] and name not in self.adapters:
            return 404, _error(404, f"The model `{name}` does not exist.")
        if asked_for is not None and asked_for > self.how["max_logprobs"]:
            most = self.how["max_logprobs"]
            return 400, _error(
                400, f"Requested sample logprobs of {asked_for}, which is greater than max allowed: {most}"
            )
        model = self._models["" if name == self.how["name"] or self.how["ignores_adapters"] else name]
        with self._computing, torch.inference_mode():
            return 200, {"choices": [_written(model, body)], "model": name}


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_: Any) -> None:
        pass  # a connection that was reset on purpose, or whose asker is gone


def _written(model: Any, body: Any) -> dict[str, Any]:
    """Draw tokens as vLLM does: its log-probabilities are those before temperature, top-p and the least number."""
    ids, places = [*body["prompt"]], []
    new: list[int] = []
    draw = torch.Generator().manual_seed(body.get("seed", 0))
    temperature, stops = body.get("temperature", 1.0), body.get("stop_token_ids", [])
    reason = "length"
    for step in range(body["max_tokens"]):
        logits = model(input_ids=torch.tensor([ids + new])).logits[0, -1].float()
        log_probs = logits.log_softmax(-1)
        if step < body.get("min_tokens", 0) and stops:
            logits[stops] = -torch.inf
        probs = (logits / (temperature or 1.0)).softmax(-1)
        new.append(int(torch.multinomial(probs, 1, generator=draw)) if temperature else int(probs.argmax()))
        if body.get("logprobs") is not None:
            likeliest = log_probs.topk(min(body["logprobs"], len(log_probs)))
            told = dict(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True))
            told[new[-1]] = float(log_probs[new[-1]])
            places.append({f"token_id:{token}": max(value, -9999.0) for token, value in told.items()})
        if new[-1] in stops:
            reason = "stop"
            break
    return {
        "index": 0, "text": "", "finish_reason": reason, "token_ids": new, "prompt_token_ids": body["prompt"],
        "logprobs": {"top_logprobs": places} if places else None,
    }  # fmt: skip


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "made", "param": None, "code": status}}


@contextmanager
def standing_in(model: str, **how: Any) -> Iterator[StandIn]:
    """Give a stand-in that is gone after the block."""
    server = StandIn(model, **how)
    try:
        yield server
    finally:
        server.stop()
