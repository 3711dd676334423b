import errno
import json
import shutil
from typing import BinaryIO

import pytest
from conftest import make_seeds

from isara_pl.errors import InputError
from isara_pl.growth.pool import Rejected, SamplePool, Verdict
from isara_pl.growth.samples import Sample
from isara_pl.run import files


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


def test_a_line_torn_by_a_kill_is_cut_off_and_the_rest_kept(tmp_path, caplog):
    pool = SamplePool(make_seeds(), tmp_path)
    grow(pool, 1, [0, 1], [])
    path = tmp_path / "pool.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    again = SamplePool(make_seeds(), tmp_path)
    assert [sample.id for sample in again.accepted(1)] == ["1-00000"]
    assert path.read_bytes() == whole[:-10]  # reading changes nothing: another process may be writing this line
    with caplog.at_level("INFO"):
        grow(again, 1, [1], [])
    assert path.read_bytes() == whole
    assert f"{path}: cut off the last line" in caplog.text


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


def test_a_journal_cut_at_any_byte_gives_the_whole_entries_before_the_cut(tmp_path):
    seeds = make_seeds(2)
    pool = SamplePool(seeds, tmp_path / "whole")
    grow(pool, 1, [0, 2], [1])
    grow(pool, 2, [0], [1, 2])
    folder = tmp_path / "cut"
    for name, least in (("pool.jsonl", len(seeds)), ("rejected.jsonl", 0)):
        shutil.copytree(tmp_path / "whole", folder)
        whole = (folder / name).read_bytes()
        entries = whole.split(b"\n")[:-1]
        ends = [place for place in range(len(whole)) if whole[place] == ord("\n")]
        # around every end, and often enough between
        for cut in sorted({*ends, *(end + 1 for end in ends[:-1]), *range(0, len(whole), 11)}):
            (folder / name).write_bytes(whole[:cut])
            complete = whole[:cut].count(b"\n")
            if complete < least:  # seeds are on disk before anything is grown: no kill can cut them
                with pytest.raises(InputError, match="grown from other seeds"):
                    SamplePool(seeds, folder)
                continue
            again = SamplePool(seeds, folder)
            of_pool, of_rejected = (complete, 3) if name == "pool.jsonl" else (5, complete)
            assert [sample.id for sample in again.samples] == [sample.id for sample in pool.samples[:of_pool]]
            assert again.known()["rejected"] == of_rejected
            again.record([], [])
            assert (folder / name).read_bytes() == b"".join(entry + b"\n" for entry in entries[:complete])
        shutil.rmtree(folder)


def test_the_same_sample_twice_is_named(tmp_path):
    grow(SamplePool(make_seeds(), tmp_path), 1, [0, 1], [2])
    for name, line in (("pool.jsonl", 11), ("rejected.jsonl", 2)):
        whole = (tmp_path / name).read_text()
        (tmp_path / name).write_text(whole + whole.splitlines(keepends=True)[-1])
        with pytest.raises(InputError, match=rf"{name}:{line}: .* stands in line {line - 1} already"):
            SamplePool(make_seeds(), tmp_path)
        (tmp_path / name).write_text(whole)


def full_disk(file: BinaryIO, content: bytes) -> None:
    file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def killed(error: type[OSError]) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("truncates", [True, False])
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch, truncates):
    pool = SamplePool(make_seeds(), tmp_path)
    grow(pool, 1, [0], [1])
    before = {name: (tmp_path / name).read_bytes() for name in ("pool.jsonl", "rejected.jsonl")}
    with monkeypatch.context() as patch:
        patch.setattr(files, "_write", full_disk)
        if not truncates:  # the process is gone before it can cut off what it wrote
            patch.setattr(files, "suppress", killed)
        with pytest.raises((InputError, KeyboardInterrupt)) as stop:
            grow(pool, 2, [0], [1])
    if truncates:
        assert "rejected.jsonl could not be appended to: No space left on device" in str(stop.value)
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
    again = SamplePool(make_seeds(), tmp_path)
    assert again.judged(2) == set()
    grow(again, 2, [0], [1])
    assert SamplePool(make_seeds(), tmp_path).judged(2) == {"2-00000", "2-00001"}


def test_a_pool_that_lacks_what_a_checkpoint_knew_says_what(tmp_path):
    pool = SamplePool(make_seeds(), tmp_path)
    grow(pool, 1, [0, 1], [2])
    known = pool.known()
    assert pool.lacks(known) is None
    grow(pool, 2, [0], [1])
    assert pool.lacks(known) is None, "what came later is no loss"
    for name, words in (
        ("pool.jsonl", "pool.jsonl holds 9 entries, and held 10 then"),
        ("rejected.jsonl", "rejected.jsonl holds 0 entries, and held 1 then"),
    ):
        whole = (tmp_path / name).read_text()
        (tmp_path / name).write_text("".join(whole.splitlines(keepends=True)[:-2]))
        assert SamplePool(make_seeds(), tmp_path).lacks(known) == words
        (tmp_path / name).write_text(whole)
    path = tmp_path / "pool.jsonl"
    path.write_text(path.read_text().replace("Answer 1.", "Answer 9."))
    assert "the first 10 samples of pool.jsonl are not those" in SamplePool(make_seeds(), tmp_path).lacks(known)
