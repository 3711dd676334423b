"""What tests of outer epoch share with others."""

from collections.abc import Sequence
from typing import Any

from conftest import FakeGenerator
from helpers.retrieval import HashedEncoder

from isara_pl.generation.protocol import Sampling
from isara_pl.growth.filtering import CandidateFilter
from isara_pl.growth.outer_epoch import GrowthPlan, GrowthSettings, OuterEpoch
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


def plan(
    settings: GrowthSettings = SETTINGS, index: PoolIndex | None = None, seed: int = 0, questions: Sequence[str] = ()
) -> GrowthPlan:
    return GrowthPlan(settings, prompt_format("qa", None), index or PoolIndex(HashedEncoder()), seed, questions)


def outer_epoch(
    pool: SamplePool,
    number: int = 1,
    generator: Any = None,
    filters: Sequence[CandidateFilter] = (),
    **more: Any,
) -> OuterEpoch:
    of_plan = {name: more.pop(name) for name in ("settings", "index", "seed", "questions") if name in more}
    return OuterEpoch(number, pool, plan(**of_plan), generator or FakeGenerator(), list(filters), **more)
