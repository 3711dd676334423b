"""On which device these tests run."""

import os

# deterministic algorithms need it, and it counts only before the first matrix product
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=["cuda", "cpu"],
        default="cuda",
        help="Where the tests of tests/gpu run; on `cpu` they compare the CPU with itself, which tests the tests.",
    )


@pytest.fixture(scope="session", autouse=True)
def device(request: pytest.FixtureRequest) -> str:
    """Give the device; where there is no GPU, nothing runs unless the CPU was asked for."""
    chosen = request.config.getoption("--device", "cuda")
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here; `pytest tests/gpu --device cpu` tries the tests themselves")
    return chosen


@pytest.fixture
def accelerator(device: str) -> list[str]:
    """Give the command line's arguments for the device."""
    return ["--trainer.accelerator", "gpu" if device == "cuda" else "cpu", "--trainer.devices", "1"]


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Compute float32 as float32, without TF32, and leave no test's settings to the next."""
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(False)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
