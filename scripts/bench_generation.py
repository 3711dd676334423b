"""Time the generation of one outer epoch: the engine against plain loops of transformers' `generate`.

The same prompts (questions and answers, K demonstrations each, from the packaged seeds) are completed by
every way in turn, in one process, with the same weights, dtype, sampling and stop tokens. The references
have no adapter to compute; the engine folds one in, and that is part of its time.

    python scripts/bench_generation.py --json generation.json
    python scripts/bench_generation.py --device cuda --shape llama-7b --continuous
    python scripts/bench_generation.py --vllm http://127.0.0.1:8000
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from benchmark import (
    MEMORY_KEPT,
    Ceiling,
    ceiling,
    machine,
    print_table,
    seconds_of,
    summary,
    time_alternately,
    write_json,
)
from generation_ways import Part, Work, by_engine, by_generate, by_generate_batch, by_server, make_parts
from peft import LoraConfig, PeftModel, get_peft_model
from shapes import SHAPES, load_shape, tokenizer_name

from isara_pl.generation.decoding import Batch
from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.kv_cache import Row
from isara_pl.generation.vllm import GeneratorOptions, VllmEngine, VllmServers
from isara_pl.models.loading import load_tokenizer
from isara_pl.models.precision import fast_precision
from isara_pl.run.memory import keep_freed_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
KEPT = "freed memory kept"  # which the command line does


def main() -> None:
    """Read the command line, time every way and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="Type of the weights; by default what the machine is fast in.")
    parser.add_argument("--candidates", type=int, default=64, help="N: questions, and as many answers.")
    parser.add_argument("--demonstrations", type=int, default=8, help="K: examples in every context.")
    parser.add_argument("--question_tokens", type=int, default=64, help="Most new tokens of a question.")
    parser.add_argument("--answer_tokens", type=int, default=100, help="Most new tokens of an answer.")
    parser.add_argument("--generation_tokens", type=int, default=32768, help="The engine's budget.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each way is timed.")
    parser.add_argument("--continuous", action="store_true", help="Time transformers' generate_batch as well.")
    parser.add_argument("--vllm", metavar="URL", help="Time a vLLM server of the same model as well, without adapter.")
    parser.add_argument("--json", help="File for the figures.")
    arguments = parser.parse_args()
    torch.backends.cuda.enable_cudnn_sdp(False)  # as the command line does
    precision, _ = fast_precision("cpu" if arguments.device == "cpu" else "auto")
    fast = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(precision, "float32")
    dtype = DTYPES[arguments.dtype or fast]
    model = load_shape(arguments.shape, arguments.device, dtype)
    tokenizer = load_tokenizer(tokenizer_name())
    adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    engine = GenerationEngine(adapted.get_base_model(), tokenizer, arguments.generation_tokens)
    work = Work(
        arguments.candidates,
        arguments.demonstrations,
        arguments.question_tokens,
        arguments.answer_tokens,
        speaks=arguments.shape == "smollm2",
    )
    parts = make_parts(work, engine, adapted)
    stops, pad = engine.stop_ids(parts[0].sampling), int(tokenizer.pad_token_id)
    written: dict[str, list[int]] = {}

    def count(name: str, new: Sequence[Sequence[int]]) -> None:
        keep_freed_memory(MEMORY_KEPT)  # the next way starts as an ordinary process
        written.setdefault(name, []).append(sum(map(len, new)))

    def in_batches(size: int, kept: bool = False) -> list[list[int]]:
        with adapted.disable_adapter():
            return by_generate(engine.model, parts, size, stops, pad, kept)

    ways: dict[str, Callable[[], None]] = {
        "engine": lambda: count("engine", by_engine(engine, adapted, parts)),
        "generate, batches of 4": lambda: count("generate, batches of 4", in_batches(4)),
    }
    with torch.inference_mode():
        engine.generate(parts[0].prompts[:4], replace(parts[0].sampling, max_new_tokens=2), range(4))
        sizes = [size for size in BATCH_SIZES if size <= arguments.candidates] or [arguments.candidates]
        tried = {}
        for size in sizes:
            try:
                tried[size] = seconds_of(partial(in_batches, size), arguments.device)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        best = min(tried, key=lambda size: tried[size])
        for name, kept in ((f"generate, batches of {best} (its best)", False), (f"the same, {KEPT}", True)):
            ways[name] = partial(lambda name, kept: count(name, in_batches(best, kept)), name, kept)
        if arguments.vllm:
            servers = VllmServers(GeneratorOptions("vllm", arguments.vllm))
            server = VllmEngine(servers, engine, lambda prompt_tokens, new_tokens: 0)
            name = f"vLLM {servers.version}"
            ways[name] = lambda: count(name, by_server(server, parts))
        if arguments.continuous:

            def continuous() -> None:
                with adapted.disable_adapter():
                    count("generate_batch", by_generate_batch(engine.model, parts, stops, pad))

            ways["generate_batch"] = continuous
        seconds = time_alternately(ways, arguments.rounds, warmup=0, device=arguments.device)
        keep_freed_memory()
        limits = ceiling(arguments.device, dtype)
        near = near_ceiling(adapted, parts[1], limits, arguments)
    tokens = [len(ids) for part in parts for ids in part.ids]
    title = (
        f"{arguments.shape}, {dtype}: {arguments.candidates} questions and answers, K = {arguments.demonstrations}, "
        f"prompts of {statistics.mean(tokens):.0f} tokens [{min(tokens)}, {max(tokens)}]"
    )
    print_table(title, seconds, "generate, batches of 4")
    best_way = next(name for name in seconds if "its best" in name)
    ratio = statistics.median(seconds[best_way]) / statistics.median(seconds["engine"])
    print(f"  the engine against {best_way}: {ratio:.2f} x")
    for name, counts in written.items():
        print(f"  {name}: {statistics.median(counts):.0f} new tokens a round")
    print(f"  batch sizes tried, seconds: {', '.join(f'{size}: {taken:.1f}' for size, taken in tried.items())}")
    for name, value in near.items():
        print(f"  {name}: {value:.3g}")
    figures = {
        "what": title,
        "seconds": seconds,
        "summary": summary(seconds, "generate, batches of 4"),
        "new_tokens": written,
        "ceiling": limits,
        **near,
    }
    write_json(arguments.json, machine(arguments.device), figures)


def near_ceiling(adapted: PeftModel, part: Part, limits: Ceiling, arguments: argparse.Namespace) -> dict[str, float]:
    """Compare prefill and decoding with what the machine can give.

    Prefill: operations that these prompts need (no padding counted) per second. Decoding: bytes that a step
    must read (weights, keys and values of its rows) per second.
    """
    model: Any = adapted.get_base_model()
    with adapted.disable_adapter():
        ids = sorted(part.ids, key=len)
        rows = max(1, arguments.generation_tokens // (len(ids[-1]) + 16))
        prefill, steps, flops, moved = [], [], 0.0, 0.0
        for start in range(0, len(ids), rows):
            chosen = ids[start : start + rows]
            batch = Batch(model, chosen, [[Row(place) for place in range(len(chosen))]], new_tokens=16)
            prefill.append(seconds_of(batch.prefill, arguments.device))
            flops += sum(forward_flops(adapted, len(prompt)) for prompt in chosen)
            weights = sum(value.numel() * value.element_size() for value in layer_weights(adapted))
            states = sum(
                2 * layer.memory[0].element_size() * layer.memory[0][0, :, 0].numel()
                for layer in batch.cache._own_layers
            )
            tokens = torch.full((len(chosen), 1), 5, device=batch.device)
            for step in range(15):
                steps.append(seconds_of(partial(batch.step, tokens, step), arguments.device))
                moved += weights + states * sum(len(prompt) + step + 1 for prompt in chosen)
    return {
        "prefill, FLOP/s": flops / sum(prefill),
        "prefill, share of the matmul ceiling": flops / sum(prefill) / limits.flops,
        "decoding, bytes/s read": moved / sum(steps),
        "decoding, share of the copy ceiling": moved / sum(steps) / limits.bytes_per_second,
        "matmul ceiling, FLOP/s": limits.flops,
        "copy ceiling, bytes/s": limits.bytes_per_second,
    }


def layer_weights(adapted: PeftModel) -> list[torch.Tensor]:
    """Give the weights that every token is multiplied with: matrices of the layers, and of the output."""
    head = adapted.get_base_model().get_output_embeddings().weight
    named = adapted.get_base_model().named_parameters()
    inner = [value for name, value in named if value.dim() == 2 and "lora_" not in name and "embed" not in name]
    return [value for value in inner if value is not head] + [head]


def forward_flops(adapted: PeftModel, length: int) -> float:
    """Give the operations of a prompt: its layers for every token, causal attention, the output for the last one."""
    *layers, head = layer_weights(adapted)
    config = adapted.get_base_model().config
    attention = 2.0 * length * length * config.hidden_size * config.num_hidden_layers
    return float(2.0 * length * sum(value.numel() for value in layers) + attention + 2.0 * head.numel())


if __name__ == "__main__":
    main()
