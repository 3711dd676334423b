"""What tests of retrieval share with others."""

import zlib

import numpy as np
from conftest import make_seeds

from isara_pl.growth.samples import Sample


class HashedEncoder:
    def encode(self, texts):
        rows = np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=8) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class CountingEncoder(HashedEncoder):
    def __init__(self):
        self.calls = []

    def encode(self, texts):
        self.calls.append(list(texts))
        return super().encode(texts)


def samples() -> list[Sample]:
    grown = [Sample(f"{t}-{i:05d}", f"Made question {t} {i}?", "Yes.", t) for t in (1, 2) for i in range(6)]
    return make_seeds() + grown
