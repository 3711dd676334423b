"""Time whole outer epochs of a real `fit`, stage by stage, and measure the memory that the loop adds.

The same run (packaged seeds, model and encoder; grow, then train) is timed in turn with the engine and
with what the released research code generates by: transformers' `generate` on padded batches of 4 in
prompt order (adapter folded in, as it has none). Freed memory is kept, as the command line does.

Every stage is timed on its own. Model: forward passes with the choice of their tokens, and training steps
with their backward pass and optimiser. What is left of generation is the engine's own work (tokens of the
prompts, what they share, texts of the completions); what is left of all is Lightning, loaders and hooks.

    python scripts/bench_outer_epoch.py --json outer_epoch.json
    python scripts/bench_outer_epoch.py --device cuda --shape llama-7b
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmark import machine, write_json
from lightning.pytorch import Trainer
from shapes import SHAPES, load_shape, tokenizer_name

import isara_pl.models.adapter
from isara_pl import IsaraDataModule, IsaraModule
from isara_pl.callbacks import CopiedAnswer, NearDuplicate, OuterEpochTable, TooShort, Unfinished
from isara_pl.generation import plain, writing
from isara_pl.generation.decoding import Batch
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.protocol import Completion, Sampling
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.retrieval import PoolIndex, SentenceEncoder
from isara_pl.models.adapter import LoraOptions
from isara_pl.models.precision import fast_precision
from isara_pl.run.memory import keep_freed_memory

SEEDS = "package://isara_pl/quickstart/seeds.jsonl"
FILTERS = (TooShort, NearDuplicate, CopiedAnswer, Unfinished)
ONCE = "loading the encoder, once"
MEMORY_OPTIONS = ("shape", "device", "candidates", "demonstrations", "outer_epochs", "generation_tokens")
MEBI = 2**20


class Stages:
    """Adds up the seconds of each stage.

    Args:
        device: On `cuda` each stage waits for the device.
    """

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, part: Any, method: str, stage: str) -> Iterator[None]:
        """Time every call of a method inside the block; what runs inside another stage is not counted twice."""
        own = getattr(part, method)

        def timed(*given: Any, **named: Any) -> Any:
            before, began = sum(self.seconds.values()), time.perf_counter()
            result = own(*given, **named)
            if self.on_gpu:
                torch.cuda.synchronize()
            inner = sum(self.seconds.values()) - before
            self.seconds[stage] += time.perf_counter() - began - inner
            return result

        with patch.object(part, method, timed):
            yield


def main() -> None:
    """Read the command line, time the runs and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--candidates", type=int, default=64, help="N of an outer epoch.")
    parser.add_argument("--demonstrations", type=int, default=8, help="K: examples in every context.")
    parser.add_argument("--outer_epochs", type=int, default=2)
    parser.add_argument("--generation_tokens", type=int, default=32768, help="The engine's budget.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each way is timed.")
    parser.add_argument("--json", help="File for the figures.")
    # for the measuring of memory, in processes of their own
    parser.add_argument("--only", choices=["training", "fit"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.backends.cuda.enable_cudnn_sdp(False)  # as the command line does
    if arguments.only:
        print(json.dumps(peak(arguments)))
        return
    runs: dict[str, list[dict[str, float]]] = {"engine": [], "generate, batches of 4": []}
    run(arguments, by_fours=False)  # reads what later runs find in memory
    for _ in range(arguments.rounds):
        for name, stages in runs.items():
            stages.append(run(arguments, by_fours=name != "engine"))
    with tempfile.TemporaryDirectory() as folder:
        memory = {what: in_own_process(arguments, what, folder) for what in ("fit", "training")}
    print(
        f"\n{arguments.shape}: {arguments.outer_epochs} outer epochs, N = {arguments.candidates}, "
        f"K = {arguments.demonstrations}"
    )
    totals = {name: statistics.median(sum(stages.values()) for stages in runs[name]) for name in runs}
    for name, rounds in runs.items():
        print(f"{name}: {totals[name]:.2f} s, {totals['generate, batches of 4'] / totals[name]:.2f} x")
        for stage in rounds[0]:
            each = [stages[stage] for stages in rounds]
            share = statistics.median(stages[stage] / sum(stages.values()) for stages in rounds)
            print(f"  {stage:28}{statistics.median(each):9.3f} s  [{min(each):.3f}, {max(each):.3f}]  {share:7.2%}")
    others = [not_model(stages) for stages in runs["engine"]]
    print(f"everything that is not the model: {statistics.median(others):.2%} [{min(others):.2%}, {max(others):.2%}]")
    added = (memory["fit"] - memory["training"]) / MEBI
    print(
        f"peak memory: training on the grown pool alone {memory['training'] / MEBI:.0f} MiB, the whole fit "
        f"{memory['fit'] / MEBI:.0f} MiB, {added:+.0f} MiB"
    )
    write_json(arguments.json, machine(arguments.device), {"runs": runs, "not_model": others, "peak_bytes": memory})


def not_model(stages: dict[str, float]) -> float:
    """Give the share of everything that is not the model; what a run does once is no part of an outer epoch."""
    seconds = {name: taken for name, taken in stages.items() if name != ONCE}
    return sum(taken for name, taken in seconds.items() if not name.startswith("model")) / sum(seconds.values())


def make_trainer(arguments: argparse.Namespace, folder: str, outer_epochs: int) -> Trainer:
    """Give the trainer of a run."""
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu" if arguments.device == "cpu" else "gpu",
        devices=1,
        precision=fast_precision(arguments.device)[0],  # type: ignore[arg-type]  # lightning lists the names it knows
        max_epochs=2 * outer_epochs,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[*(each() for each in FILTERS), OuterEpochTable()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def make_parts(
    arguments: argparse.Namespace, candidates: int, seeds: str = SEEDS
) -> tuple[IsaraModule, IsaraDataModule]:
    """Give the module and the data module of a run."""
    module = IsaraModule(
        tokenizer_name(),
        LoraOptions(r=8, alpha=16),
        learning_rate=1e-3,
        epochs_per_outer_epoch=2,
        generation_tokens=arguments.generation_tokens,
    )
    data = IsaraDataModule(
        seeds,
        tokenizer=tokenizer_name(),
        candidates_per_outer_epoch=candidates,
        outer_epochs=arguments.outer_epochs if candidates else 1,
        epochs_per_outer_epoch=2,
        demonstrations=arguments.demonstrations,
        question_sampling=Sampling(temperature=0.9, top_p=0.95, max_new_tokens=64, stop_at_newline=True),
        answer_sampling=Sampling(max_new_tokens=100, stop_at_newline=True),
    )
    return module, data


def run(arguments: argparse.Namespace, by_fours: bool) -> dict[str, float]:
    """Give the seconds of each stage of a whole run, from the first growth to the end of training."""
    keep_freed_memory()
    gc.collect()
    module, data = make_parts(arguments, arguments.candidates)
    stages = Stages(arguments.device)
    generate: Callable[..., Any] = in_fours if by_fours else GenerationEngine.generate
    with tempfile.TemporaryDirectory() as folder, shape_of(arguments):
        trainer = make_trainer(arguments, folder, data.outer_epochs)
        with (
            patch.object(GenerationEngine, "generate", generate),
            stages.timed(IsaraModule, "generate", "generation: the rest"),
            stages.timed(Batch, "prefill", "model: prefill"),
            stages.timed(writing, "complete", "model: decoding"),
            # on a GPU drawing is part of a graph, in which nothing can be timed
            nullcontext() if stages.on_gpu else stages.timed(writing, "next_tokens", "model: drawing tokens"),
            stages.timed(plain, "complete", "model: generate"),
            stages.timed(isara_pl.models.adapter, "MergedWeights", "model: merging the adapter"),
            stages.timed(SentenceEncoder, "encode", "retrieval: embedding"),
            stages.timed(SentenceEncoder, "_load", ONCE),
            stages.timed(PoolIndex, "nearest", "retrieval: search"),
            stages.timed(SamplePool, "record", "journal"),
            filters_timed(stages, FILTERS),
            stages.timed(trainer.strategy, "optimizer_step", "model: training"),
            stages.timed(trainer, "save_checkpoint", "checkpoints"),
            stages.timed(trainer.fit_loop, "run", "the rest"),
        ):
            trainer.fit(module, data)
    return dict(sorted(stages.seconds.items()))


@contextmanager
def filters_timed(stages: Stages, filters: Sequence[type]) -> Iterator[None]:
    """Time the verdicts of all filters inside the block."""
    if not filters:
        yield
        return
    with stages.timed(filters[0], "verdict", "filters"), filters_timed(stages, filters[1:]):
        yield


@contextmanager
def shape_of(arguments: argparse.Namespace) -> Iterator[None]:
    """Let the module load random weights of a larger shape inside the block; the packaged model needs nothing."""
    if arguments.shape == "smollm2":
        yield
        return
    dtype = torch.bfloat16
    with patch("isara_pl.module.load_causal_lm", lambda *_: load_shape(arguments.shape, arguments.device, dtype)):
        yield


@torch.inference_mode()
def in_fours(
    engine: GenerationEngine, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int], top: None
) -> list[Completion]:
    """Complete prompts as the released research code does: padded batches of 4, in prompt order."""
    pad = int(engine.tokenizer.pad_token_id)
    stops = engine.stop_ids(sampling)
    completions = []
    for start in range(0, len(prompts), 4):
        ids = [engine.tokenizer(prompt).input_ids for prompt in prompts[start : start + 4]]
        for row in plain.complete(engine.model, ids, sampling, list(seeds[start : start + 4]), stops, pad):
            end = next((place for place, token in enumerate(row) if token in stops), len(row))
            text = str(engine.tokenizer.decode(row[:end], skip_special_tokens=True))
            completions.append(Completion(text, finished=end < len(row)))
    return completions


def in_own_process(arguments: argparse.Namespace, what: str, folder: str) -> float:
    """Give the peak memory, in bytes, of a process that does nothing else."""
    options = [f"--{name}={getattr(arguments, name)}" for name in MEMORY_OPTIONS]
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), *options, f"--only={what}"]
    command += ["--folder", folder]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output.strip().splitlines()[-1])


def peak(arguments: argparse.Namespace) -> float:
    """Grow and train (`fit`), or only train on the pool that this left (`training`); give the peak memory in bytes."""
    keep_freed_memory()
    pool = Path(arguments.folder) / "pool.jsonl"
    grows = arguments.only == "fit"
    module, data = make_parts(arguments, arguments.candidates if grows else 0, SEEDS if grows else str(pool))
    with tempfile.TemporaryDirectory() as folder, shape_of(arguments):
        make_trainer(arguments, arguments.folder if grows else folder, data.outer_epochs).fit(module, data)
    if arguments.device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    # not getrusage: a child takes over the peak of the process that started it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return float(status["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main()
