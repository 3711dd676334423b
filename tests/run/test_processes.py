import json
from pathlib import Path

import pytest
from torch import distributed, multiprocessing

from isara_pl.errors import InputError
from isara_pl.run.trainer import ALONE, Processes


@pytest.mark.parametrize(("items", "count"), [(7, 2), (6, 3), (2, 3), (0, 2), (5, 1)])
def test_shares_are_neighbours_differ_by_one_at_most_and_leave_nothing_out(items, count):
    shares = [Processes(rank, count).share(range(items)) for rank in range(count)]
    assert [item for share in shares for item in share] == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_single_process_talks_to_nobody():
    assert not distributed.is_initialized()
    assert ALONE.gathered(lambda: [1, 2]) == [1, 2]
    assert ALONE.from_first(lambda: "made") == "made"


def _raise(error: Exception):
    raise error


def _caught(call, work) -> str:
    try:
        return repr(call(work))
    except (InputError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def _talk(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    both = Processes(rank, 2)
    called: list[int] = []
    heard = {
        "order": both.gathered(lambda: [f"{rank}a", f"{rank}b"][: 2 - rank]),
        "first": both.from_first(lambda: called.append(rank) or ["made", rank]),
        "called": called,
        "bad input of 1": _caught(both.gathered, lambda: _raise(InputError("line 3")) if rank else [1]),
        "error of 1": _caught(both.gathered, lambda: _raise(RuntimeError("broke")) if rank else [1]),
        "bad input of 0": _caught(both.from_first, lambda: _raise(InputError("line 4"))),
        "afterwards": both.gathered(lambda: [rank]),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(heard))
    distributed.barrier()
    distributed.destroy_process_group()


def test_processes_hear_the_same_and_an_error_of_one_is_raised_in_all(tmp_path):
    # forked, since spawned ones would import everything anew
    multiprocessing.start_processes(_talk, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first.pop("called") == [0]
    assert second.pop("called") == []
    assert first.pop("error of 1") == "RuntimeError: process 1 failed with RuntimeError: broke"
    assert second.pop("error of 1") == "RuntimeError: broke"
    assert first == second
    assert first == {
        "order": ["0a", "0b", "1a"],
        "first": ["made", 0],
        "bad input of 1": "InputError: line 3",
        "bad input of 0": "InputError: line 4",
        "afterwards": [0, 1],
    }
