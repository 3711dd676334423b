"""What the benchmarks share: timing several ways in turn, the machine and its ceilings, the table, the JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

# (rows, columns, inner): the shapes of a small model's layers, and squares for wide machines
MATMUL_SHAPES = ((4096, 576, 1536), (4096, 1536, 576), (1024, 4096, 4096), (4096, 4096, 4096), (8192, 8192, 8192))
COPIED_BYTES = 2**28  # well beyond any cache
MEMORY_KEPT = 2**26  # bytes of freed memory that glibc comes to keep by itself after some large tensors
AT_LEAST_SECONDS = 0.1  # a ceiling's timing repeats its work until it takes that long


@dataclass(frozen=True)
class Ceiling:
    """The most that a machine was seen to give.

    Attributes:
        flops: Multiplications and additions of a dense matrix product, 1/s.
        bytes_per_second: Bytes of a copy in memory, read and written counted both.
    """

    flops: float
    bytes_per_second: float


def time_alternately(
    ways: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """Time several ways in turn, so that whatever slows the machine meets all of them.

    Args:
        ways: What to run, by the name that the table shows.
        rounds: How often each way is timed.
        warmup: Rounds before those, not counted.
        device: Where they run; on `cuda` each timing waits for the device.

    Returns:
        The seconds of each round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warmup + rounds):
        for name, way in ways.items():
            taken = seconds_of(way, device)
            if number >= warmup:
                seconds[name].append(taken)
    return seconds


def seconds_of(work: Callable[[], object], device: str = "cpu") -> float:
    """Give the wall time of one run, the device's work included."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def print_table(title: str, seconds: Mapping[str, Sequence[float]], reference: str, per: int = 1) -> None:
    """Print each way's median milliseconds, its spread, and how many times the reference's speed it has.

    Args:
        title: What was timed.
        seconds: The seconds of each round, by way.
        reference: The way that the others are compared with.
        per: Things done in a round; the milliseconds are of one of them.
    """
    width = max(map(len, seconds))
    print(f"\n{title}")
    for name, figures in summary(seconds, reference, per).items():
        spread = f"[{figures['min_ms']:.3f}, {figures['max_ms']:.3f}]"
        print(f"  {name:{width}}  {figures['median_ms']:10.3f} ms  {spread:>24}  {figures['times_as_fast']:8.2f} x")


def summary(seconds: Mapping[str, Sequence[float]], reference: str, per: int = 1) -> dict[str, dict[str, float]]:
    """Give the figures of `print_table`, for the JSON."""
    slow = statistics.median(seconds[reference])
    return {
        name: {
            "median_ms": statistics.median(times) / per * 1e3,
            "min_ms": min(times) / per * 1e3,
            "max_ms": max(times) / per * 1e3,
            "times_as_fast": slow / statistics.median(times),
        }
        for name, times in seconds.items()
    }


def machine(device: str = "cpu") -> dict[str, Any]:
    """Give what a figure must be read with: processor, cores, threads, accelerator, version of torch."""
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if torch.device(device).type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def ceiling(device: str, dtype: torch.dtype, shapes: Sequence[tuple[int, int, int]] = MATMUL_SHAPES) -> Ceiling:
    """Measure what the machine can give at best: the fastest of several matrix products, and a copy.

    Args:
        device: Where, e.g. `cpu` or `cuda`.
        dtype: Of the product.
        shapes: Rows, columns and inner dimension of the products.
    """
    fastest = 0.0
    for rows, columns, inner in shapes:
        if device == "cpu" and rows * columns * inner > 4096**3:
            continue  # a minute on a laptop, and no faster there
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(inner, columns, device=device, dtype=dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        seconds = seconds_each(partial(torch.mm, left, right, out=out), device)
        fastest = max(fastest, 2 * rows * columns * inner / seconds)
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Ceiling(fastest, 2 * COPIED_BYTES / seconds_each(lambda: target.copy_(source), device))


def write_json(path: str | None, facts: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """Write the figures and the machine's facts to a file; None writes nothing."""
    if path is not None:
        Path(path).write_text(json.dumps({"machine": facts, **figures}, indent=2, default=_plain) + "\n", "utf-8")


def seconds_each(work: Callable[[], object], device: str) -> float:
    """Give the best seconds of one run, each timing long enough to be read off a clock."""
    work()  # the first run allocates and picks kernels
    once = seconds_of(work, device)
    repeat = max(1, round(AT_LEAST_SECONDS / max(once, 1e-9)))

    def repeated() -> None:
        for _ in range(repeat):
            work()

    return min(seconds_of(repeated, device) for _ in range(3)) / repeat


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text("utf-8").splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _plain(value: object) -> Any:
    """Give what JSON can hold of a figure: a ceiling as its fields, a dtype as its name."""
    return asdict(value) if isinstance(value, Ceiling) else str(value)
