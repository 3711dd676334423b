"""What tests of outer epoch share with others."""

from collections.abc import Sequence
from typing import Any

from conftest import FakeGenerator
from helpers.retrieval import HashedEncoder

from isara_pl.generation.protocol import Sampling
from isara_pl.growth.outer_epoch import CandidateFilter, GrowthSettings, OuterEpoch
from isara_pl.growth.pool import SamplePool, Verdict
from isara_pl.growth.prompts import prompt_format
from isara_pl.growth.retrieval import PoolIndex
from isara_pl.growth.samples import Sample

SETTINGS = GrowthSettings(
    candidates=10,
    demonstrations=3,
    question_context="knn",
    answer_context="knn",
    per_source_quota=None,
    question_sampling=Sampling(max_new_tokens=20),
    answer_sampling=Sampling(max_new_tokens=30, do_sample=False),
    candidates_per_batch=4,
)


class NothingOdd:
    """Rejects candidates with an odd number."""

    def verdict(self, candidate: Sample, pool: SamplePool) -> Verdict:
        odd = int(candidate.id[-1]) % 2
        return Verdict(odd, "odd" if odd else None)


def outer_epoch(
    pool: SamplePool,
    number: int = 1,
    generator: Any = None,
    filters: Sequence[CandidateFilter] = (),
    **more: Any,
) -> OuterEpoch:
    settings = more.pop("settings", SETTINGS)
    index = more.pop("index", None)
    return OuterEpoch(
        number,
        pool,
        index or PoolIndex(HashedEncoder()),
        generator or FakeGenerator(),
        list(filters),
        prompt_format("qa", None),
        settings,
        seed=more.pop("seed", 0),
        **more,
    )
