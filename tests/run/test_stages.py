"""Where time and tokens go, stage by stage."""

import time

import pytest

from isara_pl.run.stages import Stage, count, listen, stage, unlisten


class Listener:
    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[Stage] = []

    def on_stage_start(self, stage: Stage) -> None:
        self.started.append(stage.name)

    def on_stage_end(self, stage: Stage) -> None:
        self.ended.append(stage)


@pytest.fixture
def listener():
    listen(made := Listener())
    yield made
    unlisten(made)


def test_a_stage_counts_what_is_done_in_itself_alone(listener):
    with stage("growth", 3, total=2):
        count(done=1, flops=5)
        with stage("questions", total=4):
            time.sleep(0.05)
            count(done=4, prompt_tokens=7, generated_tokens=9)
        count(done=1)
    questions, growth = listener.ended
    assert listener.started == ["growth", "questions"]
    assert (questions.name, questions.outer_epoch, questions.total, questions.outer) == ("questions", 3, 4, growth)
    assert (questions.done, questions.prompt_tokens, questions.generated_tokens, questions.flops) == (4, 7, 9, 0)
    assert (growth.done, growth.prompt_tokens, growth.flops) == (2, 0, 5)
    assert questions.wall_seconds >= 0.05 > growth.wall_seconds, "the outer clock stands still meanwhile"
    assert questions.cpu_seconds < 0.05
    assert growth.peak_memory > 0


def test_an_error_ends_its_stages_and_those_around_go_on(listener):
    with stage("evaluation"):
        with pytest.raises(ZeroDivisionError), stage("answers"):
            count(done=1 // 0)
        count(done=1)
    assert [ended.name for ended in listener.ended] == ["answers", "evaluation"]
    assert [ended.done for ended in listener.ended] == [0, 1]


def test_outside_of_stages_nothing_is_counted_and_who_does_not_listen_hears_nothing(listener):
    count(done=1)
    unlisten(listener)
    with stage("questions"):
        count(done=1)
    assert listener.started == listener.ended == []
