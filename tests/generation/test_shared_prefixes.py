import random

import pytest

from isara_pl.generation.kv_cache import rounds, sharing_order


def make_prompts(seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    stems = [[draw.randrange(50) for _ in range(draw.randrange(20, 200))] for _ in range(4)]
    prompts = []
    for _ in range(30):
        stem = draw.choice(stems)
        prompts.append(
            stem[: draw.randrange(1, len(stem) + 1)] + [draw.randrange(50) for _ in range(draw.randrange(60))]
        )
    return prompts + prompts[:5]


@pytest.mark.parametrize("seed", range(20))
def test_rows_take_only_what_an_earlier_round_has_and_what_is_the_same(seed):
    prompts = make_prompts(seed)
    plan = rounds(prompts)
    done: set[int] = set()
    for number, rows in enumerate(plan):
        computed = [len(prompts[row.prompt]) - row.shared for row in rows]
        assert computed == sorted(computed)
        for row in rows:
            assert row.round == number
            if row.parent is None:
                assert row.shared == 0 == number
            else:
                assert row.parent in done
                assert prompts[row.prompt][: row.shared] == prompts[row.parent][: row.shared]
        done |= {row.prompt for row in rows}
    assert sorted(row.prompt for rows in plan for row in rows) == list(range(len(prompts)))


def test_prompts_of_one_context_share_it_in_a_single_round():
    context = list(range(300))
    prompts = [[*context, 1000 + place] for place in range(10)]
    plan = rounds(prompts)
    assert [len(rows) for rows in plan] == [1, 9]
    assert {row.shared for row in plan[1]} == {300}


def test_contexts_within_contexts_are_shared_too():
    outer = list(range(300))
    inner = [*outer, *range(500, 800)]
    prompts = [[*outer, place] for place in range(1000, 1005)] + [[*inner, place] for place in range(2000, 2005)]
    tokens = sum(len(prompts[row.prompt]) - row.shared for rows in rounds(prompts) for row in rows)
    assert tokens == 300 + 300 + 10


def test_little_in_common_is_not_worth_a_round():
    assert len(rounds([[*range(20), 100 + place] for place in range(50)])) == 1
    assert len(rounds([[*range(40), 100], [*range(40), 101]])) == 1


def test_prompts_stand_by_length_unless_their_contexts_are_the_same():
    apart = [[place] * length for place, length in enumerate((30, 5, 80, 12))]
    assert sharing_order(apart) == [1, 3, 0, 2]
    shared = [[*range(100 * (place % 2), 100 * (place % 2) + 90), *[place] * (10 * place)] for place in range(6)]
    assert [place % 2 for place in sharing_order(shared)] == [0, 0, 0, 1, 1, 1]
