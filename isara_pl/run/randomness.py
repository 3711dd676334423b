"""Random numbers that depend on where they are used, never on what the process did before."""

import hashlib


def derive_seed(seed: int, *place: int | str) -> int:
    """Give the seed of one place in a run, e.g. `derive_seed(0, "questions", outer_epoch, batch)`.

    It is an integer in [0, 2^63), the same on every machine and in every process.
    """
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
