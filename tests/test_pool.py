import json

import pytest
from conftest import make_seeds

from isara_pl.errors import InputError
from isara_pl.growth.pool import Rejected, SamplePool, Verdict
from isara_pl.growth.samples import Sample


def candidate(outer_epoch: int, number: int) -> Sample:
    return Sample(f"{outer_epoch}-{number:05d}", f"Question {number}?", f"Answer {number}.", outer_epoch)


def grow(pool: SamplePool, outer_epoch: int, accepted: list[int], rejected: list[int]) -> None:
    taken = [candidate(outer_epoch, number) for number in accepted]
    for sample in taken:
        pool.add(sample)
    pool.record(taken, [Rejected(candidate(outer_epoch, n), "TooShort", Verdict(2, "short")) for n in rejected])


def test_a_pool_opened_again_is_the_same_pool(tmp_path):
    pool = SamplePool(make_seeds(), tmp_path)
    grow(pool, 1, [0, 2], [1])
    grow(pool, 2, [0], [1, 2])
    again = SamplePool(make_seeds(), tmp_path)
    assert again.samples == pool.samples
    assert [sample.id for sample in again.accepted(1)] == ["1-00000", "1-00002"]
    assert again.rejected(2) == {"TooShort": 2}
    assert again.judged(1) == {"1-00000", "1-00001", "1-00002"}
    assert len(again.up_to(1)) == len(make_seeds()) + 2


def test_rejected_lines_hold_reason_figure_and_lineage(tmp_path):
    grow(SamplePool(make_seeds(), tmp_path), 1, [], [0])
    (line,) = (tmp_path / "rejected.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert (row["filter"], row["figure"], row["reason"], row["question"]) == ("TooShort", 2, "short", "Question 0?")
    assert {"question_demonstrations", "answer_demonstrations", "sampling_seed"} <= row.keys()


def test_a_line_torn_by_a_kill_is_cut_off_and_the_rest_kept(tmp_path):
    pool = SamplePool(make_seeds(), tmp_path)
    grow(pool, 1, [0, 1], [])
    path = tmp_path / "pool.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    again = SamplePool(make_seeds(), tmp_path)
    assert [sample.id for sample in again.accepted(1)] == ["1-00000"]
    assert path.read_bytes() == whole[: whole[:-10].rfind(b"\n") + 1]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    grow(SamplePool(make_seeds(), tmp_path), 1, [0], [])
    path = tmp_path / "pool.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = lines[3][:-20] + "\n"
    path.write_text("".join(lines))
    with pytest.raises(InputError, match=r"pool\.jsonl:4: damaged line"):
        SamplePool(make_seeds(), tmp_path)


def test_other_seeds_than_the_journals_are_refused_and_nothing_is_written(tmp_path):
    grow(SamplePool(make_seeds(), tmp_path), 1, [0], [])
    before = (tmp_path / "pool.jsonl").read_bytes()
    with pytest.raises(InputError, match="grown from other seeds"):
        SamplePool(make_seeds(5), tmp_path)
    assert (tmp_path / "pool.jsonl").read_bytes() == before


def test_a_folder_where_nothing_was_judged_yet_takes_other_seeds(tmp_path):
    SamplePool(make_seeds(), tmp_path)
    grow(SamplePool(make_seeds(5), tmp_path), 1, [0], [])
    assert len(SamplePool(make_seeds(5), tmp_path)) == 6


def test_a_pool_whose_rejected_list_is_gone_is_still_a_pool(tmp_path):
    grow(SamplePool(make_seeds(), tmp_path), 1, [0, 1], [2])
    (tmp_path / "rejected.jsonl").unlink()
    before = (tmp_path / "pool.jsonl").read_bytes()
    assert len(SamplePool(make_seeds(), tmp_path).accepted(1)) == 2
    assert (tmp_path / "pool.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", [b"{}\n", b'{"a": 1}\n', b"[]\n", b'{"id": "\xff"}\n'])
@pytest.mark.parametrize("name", ["pool.jsonl", "rejected.jsonl"])
def test_a_line_that_is_no_entry_is_named(tmp_path, name, line):
    grow(SamplePool(make_seeds(), tmp_path), 1, [0], [1])
    path = tmp_path / name
    path.write_bytes(line + path.read_bytes())
    with pytest.raises(InputError, match=rf"{name}:1: damaged line"):
        SamplePool(make_seeds(), tmp_path)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grow(SamplePool(make_seeds()), 1, [0], [1])
    assert list(tmp_path.iterdir()) == []
