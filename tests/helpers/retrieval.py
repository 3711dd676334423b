"""What tests of retrieval share with others."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from conftest import make_seeds

from isara_pl.growth.samples import Sample

Rows = np.ndarray[Any, np.dtype[np.float32]]


class HashedEncoder:
    def encode(self, texts: Sequence[str]) -> Rows:
        rows = np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=8) for text in texts])
        unit: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


class CountingEncoder(HashedEncoder):
    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Rows:
        self.calls.append(list(texts))
        return super().encode(texts)


def samples() -> list[Sample]:
    grown = [Sample(f"{t}-{i:05d}", f"Made question {t} {i}?", "Yes.", t) for t in (1, 2) for i in range(6)]
    return make_seeds() + grown
