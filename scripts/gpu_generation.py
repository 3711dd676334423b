"""Generation at a shape: one outer epoch by the engine and by transformers, decoding and prefill near their limits."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from bench_generation import forward_flops, layer_weights
from benchmark import seconds_of
from generation_ways import Part, Work, by_engine, by_generate, by_generate_batch, make_parts
from gpu_rows import Check, Row, share
from peft import PeftModel
from shapes import tokenizer_name
from transformers import ContinuousBatchingConfig, PreTrainedTokenizerBase

from isara_pl.generation.engine import GenerationEngine
from isara_pl.generation.protocol import Sampling
from isara_pl.models.loading import load_tokenizer
from isara_pl.run.memory import is_out_of_memory

SPREAD = 4.0  # standard deviation of a trained model's logits; random weights are three times as flat


class Endless(GenerationEngine):
    """Ends at nothing that the model can write, so that lengths are fixed."""

    def stop_ids(self, sampling: Sampling) -> list[int]:
        """Give a token that is no output of the model."""
        return [int(self.model.config.vocab_size)]


@dataclass(frozen=True)
class Loaded:
    """A model of the shape, ready to generate.

    Attributes:
        adapted: With its adapter.
        engine: The engine on its base.
        parts: Prompts of one outer epoch.
        new_tokens: How many tokens are written to all of them.
    """

    adapted: PeftModel
    engine: Endless
    parts: list[Part]
    new_tokens: int

    @property
    def pad(self) -> int:
        """What pads."""
        return int(self.engine.tokenizer.pad_token_id)


def load(check: Check) -> Loaded:
    """Load the shape and make the prompts of one outer epoch."""
    small = check.small
    work = Work(8 if small else 256, 2 if small else 8, 4 if small else 64, 6 if small else 100, False)
    adapted = check.adapted_model()
    if check.shape != "smollm2":
        sharpen(adapted.get_base_model())
    engine = Endless(adapted.get_base_model(), load_tokenizer(tokenizer_name()), check.generation_tokens)
    parts = make_parts(work, engine, adapted)
    return Loaded(adapted, engine, parts, sum(len(part.ids) * part.sampling.max_new_tokens for part in parts))


@torch.no_grad()
def sharpen(model: Any) -> None:
    """Scale the output layer so that logits are as far apart as a trained model's: drawing depends on it."""
    logits = model(input_ids=torch.arange(3, 67, device=model.device)[None]).logits
    model.get_output_embeddings().weight.mul_(SPREAD / logits.float().std())


def generation(check: Check) -> Iterator[Row]:
    """Time one outer epoch by the engine and by `generate`, and the engine's parts against the device's limits."""
    loaded = load(check)
    lengths = [len(ids) for part in loaded.parts for ids in part.ids]
    yield Row("prompts", float(len(lengths)), note=f"of {sum(lengths) / len(lengths):.0f} tokens on average")
    yield Row("new tokens", float(loaded.new_tokens), note="in all, lengths fixed")
    yield from engine_epoch(check, loaded)
    sizes = (2, 4) if check.small else (64, 256)
    for rows in sizes:
        yield from near_limits(check, loaded, rows)
    yield from generate_epoch(check, loaded)


def engine_epoch(check: Check, loaded: Loaded) -> Iterator[Row]:
    """Time one outer epoch by the engine, twice: the second time everything is warm."""
    check.free_memory()
    new: list[list[int]] = []

    def work() -> None:
        new[:] = by_engine(loaded.engine, loaded.adapted, loaded.parts)

    with heard() as said:
        seconds = [seconds_of(work, check.device) for _ in range(2)]
    yield from said
    if sum(map(len, new)) != loaded.new_tokens:
        yield Row("engine: new tokens", float(sum(map(len, new))), note="lengths are not those asked for", failed=True)
    check.rates["engine"] = loaded.new_tokens / seconds[1]
    yield Row("engine: one outer epoch", seconds[1], "s", f"adapter folded in; the first time {seconds[0]:.2f} s")
    yield Row("engine: new tokens", check.rates["engine"], "tokens/s")
    yield from check.peak("engine")


def generate_epoch(check: Check, loaded: Loaded) -> Iterator[Row]:
    """Time one outer epoch by transformers' `generate` on the bare base, in batches of three sizes."""
    bare: Any = loaded.adapted.unload()
    stops = loaded.engine.stop_ids(loaded.parts[0].sampling)
    best = 0.0
    for size in (2, 4, 8) if check.small else (256, 128, 64):
        check.free_memory()
        name = f"generate, batches of {size}"
        try:
            with torch.inference_mode():
                work = partial(by_generate, bare, loaded.parts, size, stops, loaded.pad, memory_kept=True)
                seconds = seconds_of(work, check.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            yield Row(name, note="out of memory")
            continue
        best = max(best, loaded.new_tokens / seconds)
        yield Row(f"{name}: one outer epoch", seconds, "s", f"{loaded.new_tokens / seconds:.0f} tokens/s")
        yield from check.peak(name)
    if best:
        yield Row("engine against generate's best", check.rates["engine"] / best, "x", "target: at least 3")


def continuous(check: Check) -> Iterator[Row]:
    """Time one outer epoch by transformers' continuous batching, its warm-up included."""
    loaded = load(check)
    bare: Any = loaded.adapted.unload()
    check.free_memory()
    memory = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=128) if check.small else None
    stops = loaded.engine.stop_ids(loaded.parts[0].sampling)
    new: list[list[int]] = []

    def work() -> None:
        new[:] = by_generate_batch(bare, loaded.parts, stops, loaded.pad, memory)

    seconds = seconds_of(work, check.device)
    rate = sum(map(len, new)) / seconds
    yield Row("generate_batch: one outer epoch", seconds, "s", f"{sum(map(len, new))} new tokens, {rate:.0f} tokens/s")
    yield from check.peak("generate_batch")
    if "engine" in check.rates:
        yield Row("engine against generate_batch", check.rates["engine"] / rate, "x")


@contextmanager
def heard() -> Iterator[list[Row]]:
    """Make rows of what the engine warns of inside the block: that it went on in a slower way."""
    rows: list[Row] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield rows
    said = dict.fromkeys(str(warning.message) for warning in caught if "generat" in str(warning.message).lower())
    rows += [Row("engine", "warned", note=text) for text in said]


def near_limits(check: Check, loaded: Loaded, rows: int) -> Iterator[Row]:
    """Time the prefill of so many prompts, and the steps after it, against the measured peaks.

    Operations are those that the prompts need; bytes are weights, keys and values that a step must read. A step's
    time is what more new tokens take longer, so that a batch's own start is no part of it.
    """
    check.free_memory()
    length, few, many = (24, 4, 12) if check.small else (307, 17, 81)
    prompts = apart(loaded.engine.tokenizer, rows, length)
    lengths = [len(loaded.engine.tokenizer(prompt).input_ids) for prompt in prompts]
    engine = Endless(loaded.engine.model, loaded.engine.tokenizer, rows * (max(lengths) + many))

    def seconds(new_tokens: int) -> float:
        sampling = Sampling(max_new_tokens=new_tokens, temperature=0.9, top_p=0.95)
        return seconds_of(lambda: engine.generate(prompts, sampling, range(rows)), check.device)

    with loaded.adapted.disable_adapter(), heard() as said:
        for new_tokens in (1, many):  # kernels are picked, graphs tried
            seconds(new_tokens)
        prefill = seconds(1)
        step = (seconds(many) - seconds(few)) / (many - few)
    yield from said
    flops = sum(forward_flops(loaded.adapted, length) for length in lengths) / prefill
    read = step_bytes(loaded.adapted, lengths, (few + many) // 2) / step
    limits, name = check.limits, f"{rows} rows"
    note = share(flops, limits.flops, "matmul")
    yield Row(f"{name}: prefill", flops / 1e12, "TFLOP/s", f"{note}; {prefill:.3f} s")
    yield Row(f"{name}: decoding", rows / step, "tokens/s", f"{step * 1e3:.2f} ms a step")
    note = share(read, limits.bytes_per_second, "copy")
    yield Row(f"{name}: decoding reads", read / 1e9, "GB/s", f"{note}; target: 60% at 256 rows")
    yield from check.peak(name)


def step_bytes(adapted: PeftModel, lengths: list[int], new_tokens: int) -> float:
    """Count the bytes of weights, keys and values that a decoding step must read, so many tokens after the prompts."""
    config: Any = adapted.get_base_model().config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    of_token = 2 * config.num_hidden_layers * heads * width * adapted.dtype.itemsize
    weights = sum(weight.numel() * weight.element_size() for weight in layer_weights(adapted))
    return float(weights + of_token * sum(length + new_tokens for length in lengths))


def apart(tokenizer: PreTrainedTokenizerBase, rows: int, length: int) -> list[str]:
    """Write prompts of about so many tokens that share no beginning."""
    every = tokenizer.batch_decode([[token] for token in range(1000, 20000)])
    words = [text for text in every if text[:1] == " " and text[1:].isalpha() and text.isascii()]
    return ["".join(words[(7919 * row + 31 * place) % len(words)] for place in range(length)) for row in range(rows)]
