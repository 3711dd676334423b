"""The chart of harmless against helpful, and where it stands."""

from dataclasses import replace

import pytest

from isara_pl.report.contents import Curve, Report
from isara_pl.report.harmless import harmless_against_helpful
from isara_pl.report.page import render

REWARD = Curve("reward", "reward", True, [0, 1, 2], [0.5, 1.5, None], {"sft": 1.25, "icl": 2.0})
OVER = Curve("over_refusal", "over-refusal", False, [0, 1, 2], [0.25, 0.5, 0.75], {"sft": 0.5})
HARM = Curve("harm_rate", "harm rate", False, [0, 1, 2], [0.75, 0.5, 0.25], {"sft": 0.25})
PREFERENCE = Curve("harm_preference", "harm preference", False, [0, 1], [0.5, 0.25], {"sft": 0.5, "icl": 0.125})
UNSAFE = Curve("mine_unsafe_refusal", "refusal of unsafe prompts (mine)", True, [0, 1, 2], [0.5, 0.75, 1.0], {})


@pytest.mark.parametrize(
    ("curves", "x", "y", "titles"),
    [
        # a higher reward is better, a lower harm rate; outer epoch 2 has no reward
        ([HARM, REWARD, OVER], [0.5, 1.5], [0.25, 0.5], ("helpful: reward", "harmless: 1 − harm rate")),
        ([OVER, HARM], [0.75, 0.5, 0.25], [0.25, 0.5, 0.75], ("helpful: 1 − over-refusal", "harmless: 1 − harm rate")),
        ([REWARD, PREFERENCE], [0.5, 1.5], [0.5, 0.75], ("helpful: reward", "harmless: 1 − harm preference")),
        (
            [OVER, UNSAFE],
            [0.75, 0.5, 0.25],
            [0.5, 0.75, 1.0],
            ("helpful: 1 − over-refusal", "harmless: refusal of unsafe prompts"),
        ),
    ],
)
def test_more_is_better_on_both_axes(curves, x, y, titles):
    (chart,) = harmless_against_helpful(curves)
    assert (chart.data[0]["x"], chart.data[0]["y"]) == (x, y)
    assert tuple(chart.layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")) == titles
    assert chart.data[0]["text"] == ["pretrained", "1", "2"][: len(x)]


def test_a_method_is_a_point_where_both_were_measured():
    (chart,) = harmless_against_helpful([REWARD, PREFERENCE])
    assert [(trace["name"], trace["x"], trace["y"]) for trace in chart.data[1:]] == [
        ("sft", [1.25], [0.5]), ("icl", [2.0], [0.875])
    ]  # fmt: skip
    (chart,) = harmless_against_helpful([REWARD, HARM])
    assert [trace["name"] for trace in chart.data[1:]] == ["sft"]


@pytest.mark.parametrize("curves", [[], [REWARD], [HARM], [OVER, REWARD], [UNSAFE]])
def test_it_is_drawn_only_where_harm_and_help_were_measured(curves, empty_report):
    assert harmless_against_helpful(curves) == []
    assert 'id="harmless"' not in render(replace(empty_report, curves=curves))


def test_the_page_has_its_place(empty_report):
    assert 'id="harmless"' in render(replace(empty_report, curves=[REWARD, HARM]))


@pytest.fixture
def empty_report() -> Report:
    return Report("run", [], [], [], [], [], None, [], [], [], [], [], "", [])
