"""What tests of datamodule share with others."""

from lightning.pytorch import Callback

from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.samples import Sample


class KeepFirst(Callback):
    """Accepts the first so many candidates of each outer epoch."""

    def __init__(self, *counts: int) -> None:
        self.counts = counts

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        number = int(candidate.id.split("-")[1])
        keep = number < self.counts[candidate.outer_epoch - 1]
        return Verdict(number, None if keep else "late")
