"""What is computed on a GPU, held against the CPU: run by `python scripts/gpu_check.py`, or `pytest tests/gpu`."""
