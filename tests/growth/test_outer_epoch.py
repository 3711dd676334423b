import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
from conftest import FakeGenerator, make_seeds
from helpers.outer_epoch import SETTINGS, NothingOdd, outer_epoch
from helpers.retrieval import CountingEncoder, HashedEncoder

from isara_pl.errors import InputError
from isara_pl.generation.distributions import TopLogprobs
from isara_pl.generation.protocol import Completion
from isara_pl.growth.outer_epoch import Recording
from isara_pl.growth.pool import SamplePool
from isara_pl.growth.retrieval import PoolIndex
from isara_pl.growth.samples import Sample
from isara_pl.run.randomness import derive_seed


def test_what_was_kept_is_what_the_pool_holds_and_novelty_is_its_share(tmp_path):
    pool = SamplePool(make_seeds(), tmp_path)
    growth = outer_epoch(pool, filters=[NothingOdd()]).grow()
    assert (growth.candidates, growth.accepted, growth.novelty) == (10, 5, 0.5)
    assert growth.rejected == {"NothingOdd": 5}
    assert [sample.id for sample in pool.accepted(1)] == [f"1-{i:05d}" for i in range(0, 10, 2)]
    assert all(sample.scores == {"NothingOdd": 0} for sample in pool.accepted(1))


def test_lineage_names_the_demonstrations_in_the_prompt_nearest_last():
    pool, generator = SamplePool(make_seeds()), FakeGenerator()
    outer_epoch(pool, generator=generator).grow()
    by_id = {sample.id: sample for sample in pool.samples}
    encoder = HashedEncoder()
    questions, answers = [], []
    for start in range(0, 20, 8):  # 4 question prompts, then 4 answer prompts, for each batch
        half = len(generator.prompts[start : start + 8]) // 2
        questions += generator.prompts[start : start + half]
        answers += generator.prompts[start + half : start + 2 * half]
    for sample, question_prompt, answer_prompt in zip(pool.accepted(1), questions, answers, strict=True):
        asked = [by_id[name].question for name in sample.question_demonstrations]
        assert question_prompt.count("Question:") == 4
        assert [question_prompt.index(question) for question in asked] == sorted(
            question_prompt.index(question) for question in asked
        )
        assert answer_prompt.endswith(f"Question: {sample.question}\nAnswer:")
        used = [by_id[name] for name in sample.answer_demonstrations]
        cosines = encoder.encode([s.question for s in used]) @ encoder.encode([sample.question])[0]
        assert list(cosines) == sorted(cosines)
        best = sorted(
            encoder.encode([s.question for s in make_seeds()]) @ encoder.encode([sample.question])[0], reverse=True
        )
        assert list(cosines) == pytest.approx(best[:3][::-1], abs=1e-6)


def test_prompts_hold_nothing_but_pairs():
    pool, generator = SamplePool(make_seeds()), FakeGenerator()
    outer_epoch(pool, generator=generator).grow()
    texts = {f"Question: {s.question}" for s in pool.samples} | {f"Answer: {s.answer}" for s in pool.samples}
    for prompt in generator.prompts:
        lines = [line for line in prompt.split("\n") if line]
        assert set(lines[:-1]) <= texts
        assert lines[-1] in ("Question:", "Answer:")


def test_every_question_and_answer_has_a_seed_of_its_own_and_stops_as_the_format_does():
    generator, pool = FakeGenerator(), SamplePool(make_seeds())
    outer_epoch(pool, generator=generator).grow()
    assert len(set(generator.seeds)) == len(generator.seeds) == 20
    assert pool.accepted(1)[4].sampling_seed == derive_seed(0, "candidate", 1, 4)
    assert derive_seed(derive_seed(0, "candidate", 1, 4), "question") in generator.seeds
    assert all(sampling.stop_at_newline for sampling in generator.samplings)
    assert [sampling.max_new_tokens for sampling in generator.samplings] == [20, 30] * 3


def test_candidates_of_one_anchor_stand_together_and_anchors_are_drawn_evenly():
    generator, pool = FakeGenerator(), SamplePool(make_seeds())
    outer_epoch(pool, generator=generator, settings=replace(SETTINGS, candidates=400)).grow()
    anchors = [sample.question_demonstrations[-1] for sample in pool.accepted(1)]
    changes = sum(before != after for before, after in pairwise(anchors))
    assert changes == len(set(anchors)) - 1 == len(make_seeds()) - 1
    assert min(Counter(anchors).values()) > 400 / len(make_seeds()) / 3


def test_where_the_window_is_short_the_farthest_are_dropped():
    def fits(prompt: str, _: int) -> bool:
        return prompt.count("Question:") <= 3

    shown = []
    for limit in (None, fits):
        pool = SamplePool(make_seeds())
        outer_epoch(pool, fits=limit).grow()
        shown.append({sample.id: sample.question_demonstrations for sample in pool.accepted(1)})
    whole, short = shown
    assert whole.keys() & short.keys()
    assert {len(kept) for kept in short.values()} == {2}
    assert all(short[name] == whole[name][-2:] for name in whole.keys() & short.keys())


def test_the_size_of_a_batch_changes_no_candidate():
    pools = {}
    for size in (1, 4, 100):
        pools[size] = SamplePool(make_seeds())
        outer_epoch(pools[size], settings=replace(SETTINGS, candidates_per_batch=size)).grow()
    assert pools[1].samples == pools[4].samples == pools[100].samples


def test_a_growth_cut_off_anywhere_ends_as_an_undisturbed_one(tmp_path):
    whole = SamplePool(make_seeds(), tmp_path / "whole")
    outer_epoch(whole, filters=[NothingOdd()]).grow()
    pool_lines = (tmp_path / "whole/pool.jsonl").read_bytes().splitlines(keepends=True)
    rejected_lines = (tmp_path / "whole/rejected.jsonl").read_bytes().splitlines(keepends=True)
    seeds = len(make_seeds())
    # on disk, a batch's rejected candidates come before its accepted ones
    for kept, taken in [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 4), (3, 4), (5, 5)]:
        folder = tmp_path / f"cut-{kept}-{taken}"
        folder.mkdir()
        (folder / "pool.jsonl").write_bytes(b"".join(pool_lines[: seeds + kept]) + (b'{"torn' if kept < 5 else b""))
        (folder / "rejected.jsonl").write_bytes(b"".join(rejected_lines[:taken]))
        generator = FakeGenerator()
        growth = outer_epoch(SamplePool(make_seeds(), folder), generator=generator, filters=[NothingOdd()]).grow()
        assert (folder / "pool.jsonl").read_bytes() == b"".join(pool_lines)
        assert (folder / "rejected.jsonl").read_bytes() == b"".join(rejected_lines)
        assert (growth.candidates, growth.accepted) == (10, 5)
        assert bool(generator.prompts) == (kept < 5), "what was judged is not generated again"


def test_contexts_come_from_earlier_outer_epochs_only():
    pool = SamplePool(make_seeds())
    outer_epoch(pool).grow()
    outer_epoch(pool, number=2).grow()
    used = {name for s in pool.accepted(2) for name in (*s.question_demonstrations, *s.answer_demonstrations)}
    assert used <= {sample.id for sample in pool.up_to(1)}
    assert any(name.startswith("1-") for name in used)


def test_an_index_kept_over_the_outer_epochs_changes_nothing_and_embeds_each_sample_once():
    encoder = CountingEncoder()
    kept, anew, index = SamplePool(make_seeds()), SamplePool(make_seeds()), PoolIndex(encoder)
    for number in (1, 2, 3):
        outer_epoch(kept, number=number, index=index).grow()
        outer_epoch(anew, number=number).grow()
    assert kept.samples == anew.samples
    embedded = Counter(text for texts in encoder.calls for text in texts)
    # a question that is new when it is looked up, and once more with its outer epoch
    assert {embedded[sample.question] for sample in kept.up_to(0)} == {1}
    assert {embedded[sample.question] for sample in kept.up_to(2) if sample.outer_epoch} == {2}
    assert [sample.question for sample in kept.accepted(1)] in encoder.calls


def test_random_contexts_embed_nothing():
    encoder = CountingEncoder()
    settings = replace(SETTINGS, question_context="random", answer_context="random")
    outer_epoch(SamplePool(make_seeds()), index=PoolIndex(encoder), settings=settings).grow()
    assert encoder.calls == []


def test_random_context_with_quota_takes_one_of_each_earlier_outer_epoch():
    pool = SamplePool(make_seeds())
    outer_epoch(pool).grow()
    outer_epoch(pool, number=2).grow()
    settings = replace(SETTINGS, question_context="random", per_source_quota=1, demonstrations=5)
    outer_epoch(pool, number=3, settings=settings).grow()
    for sample in pool.accepted(3):
        for context in (sample.question_demonstrations, sample.answer_demonstrations):
            assert sorted(name.split("-")[0] for name in context) == ["1", "2", "seed", "seed", "seed"]


def test_fewer_seeds_than_demonstrations_is_fine():
    pool = SamplePool(make_seeds(2))
    outer_epoch(pool, settings=replace(SETTINGS, demonstrations=8)).grow()
    assert all(len(sample.question_demonstrations) == 2 for sample in pool.accepted(1))


def test_contexts_lose_the_farthest_demonstrations_until_they_fit():
    pool, generator = SamplePool(make_seeds()), FakeGenerator()
    whole = SamplePool(make_seeds())
    outer_epoch(whole).grow()
    growth = outer_epoch(pool, generator=generator, fits=lambda text, new: len(text) + new <= 220).grow()
    assert growth.shortened > 0
    assert all(len(prompt) + 20 <= 220 for prompt in generator.prompts)
    kept = pool.accepted(1)[0].question_demonstrations
    assert kept == whole.accepted(1)[0].question_demonstrations[-len(kept) :]


def test_a_window_too_short_for_one_demonstration_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"sample seed-0000\d alone and 20 new tokens does not fit"):
        outer_epoch(SamplePool(make_seeds()), fits=lambda text, new: False).grow()


@pytest.mark.parametrize("context", ["knn", "random"])
def test_a_sample_that_leaves_no_room_for_a_new_question_stands_in_no_context_and_is_counted(context):
    long = [replace(seed, id=f"1-{i:05d}", answer="so " * 100, outer_epoch=1) for i, seed in enumerate(make_seeds(3))]
    for number, sample in enumerate(long):
        long[number] = replace(sample, question=f"{sample.question} Really?")
    pool, generator = SamplePool([*make_seeds(), *long]), FakeGenerator()
    settings = replace(SETTINGS, candidates=20, question_context=context, answer_context=context)
    growth = outer_epoch(pool, 2, generator, settings=settings, fits=lambda text, new: len(text) + new <= 300).grow()
    assert (growth.left_out, growth.accepted) == (3, 20)
    assert not [prompt for prompt in generator.prompts if "so so" in prompt]
    shown = {name for sample in pool.accepted(2) for name in sample.question_demonstrations}
    assert shown
    assert all(name.startswith("seed") for name in shown)


def test_given_questions_are_asked_without_demonstrations_where_none_fits():
    pool, questions = SamplePool(make_seeds()), [f"Why {i}?" for i in range(10)]
    growth = outer_epoch(pool, questions=questions, fits=lambda text, new: text.count("Question:") == 1).grow()
    assert (growth.accepted, growth.left_out) == (10, len(make_seeds()))
    assert not any(sample.answer_demonstrations for sample in pool.accepted(1))


@pytest.mark.parametrize("too_long", ["7", ""])  # the questions of some candidates, and of all
def test_a_question_without_room_for_its_answer_is_rejected_and_the_others_are_answered(tmp_path, too_long):
    def fits(text: str, _: int) -> bool:
        return text.endswith("Question:") or not text.rpartition("Question:")[2].strip().startswith(f"Is {too_long}")

    whole, pool = SamplePool(make_seeds()), SamplePool(make_seeds(), tmp_path)
    outer_epoch(whole, seed=3).grow()
    growth = outer_epoch(pool, seed=3, fits=fits).grow()
    taken = [sample.id for sample in whole.accepted(1) if sample.question.startswith(f"Is {too_long}")]
    assert growth.rejected == {"NoRoom": len(taken)}
    assert pool.accepted(1) == [sample for sample in whole.accepted(1) if sample.id not in taken]
    rejected = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rejected] == taken
    assert all("leaves no room for an answer" in row["reason"] and not row["answer"] for row in rejected)


def test_an_engine_that_loses_completions_is_an_error_and_nothing_is_kept(tmp_path):
    class Losing(FakeGenerator):
        def generate(self, prompts, sampling, seeds):
            return super().generate(prompts, sampling, seeds)[:-1]

    pool = SamplePool(make_seeds(), tmp_path)
    with pytest.raises(InputError, match=r"Losing\.generate gave 3 completions for 4 prompts"):
        outer_epoch(pool, generator=Losing()).grow()
    assert len(SamplePool(make_seeds(), tmp_path)) == len(make_seeds())


def test_the_question_writer_is_entered_for_questions_only():
    generator, inside = FakeGenerator(), []

    @contextmanager
    def writer():
        before = len(generator.prompts)
        yield
        inside.extend(generator.prompts[before:])

    outer_epoch(SamplePool(make_seeds()), generator=generator, question_writer=writer).grow()
    assert inside == [prompt for prompt in generator.prompts if prompt.endswith("Question:")]
    assert len(inside) == 10


def test_other_seeds_draw_other_contexts():
    contexts = []
    for seed in (0, 0, 1):
        pool = SamplePool(make_seeds())
        outer_epoch(pool, seed=seed).grow()
        contexts.append([sample.question_demonstrations for sample in pool.accepted(1)])
    assert contexts[0] == contexts[1] != contexts[2]


def test_half_a_character_from_an_engine_is_replaced_and_can_be_written(tmp_path):
    class Odd(FakeGenerator):
        def generate(self, prompts, sampling, seeds):
            return [Completion(one.text + "\ud800", one.finished) for one in super().generate(prompts, sampling, seeds)]

    outer_epoch(SamplePool(make_seeds(), tmp_path), generator=Odd()).grow()
    again = SamplePool(make_seeds(), tmp_path).accepted(1)
    assert again
    assert all(sample.answer.endswith("?") for sample in again)


def test_of_a_batch_that_was_cut_short_all_that_is_accepted_is_told_again_as_it_was(tmp_path):
    told: list[list[Sample]] = []

    def grown(folder):
        pool = SamplePool(make_seeds(), folder)
        keep = [NothingOdd()]
        recording = Recording(TopLogprobs(4, 0), lambda batch: told.append([each.sample for each in batch]))
        outer_epoch(pool, filters=keep, recording=recording).grow()
        return pool

    grown(tmp_path)
    assert [[sample.id for sample in batch] for batch in told] == [
        ["1-00000", "1-00002"],
        ["1-00004", "1-00006"],
        ["1-00008"],
    ]
    whole, told[:] = [*told], []
    lines = (tmp_path / "pool.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "pool.jsonl").write_text("".join(lines[: len(make_seeds()) + 3]))  # up to 1-00004
    pool = grown(tmp_path)
    assert told == [whole[1], whole[2]]
    assert len(pool) == len(make_seeds()) + 5


def test_given_questions_are_answered_in_place_of_written_ones():
    pool, generator = SamplePool(make_seeds()), FakeGenerator()
    questions = [f"Where does number {number} live?" for number in range(10)]
    outer_epoch(pool, generator=generator, questions=questions).grow()
    assert [sample.question for sample in pool.accepted(1)] == questions
    assert all(sample.question_finished and sample.question_demonstrations == () for sample in pool.accepted(1))
    assert len(generator.prompts) == 10
