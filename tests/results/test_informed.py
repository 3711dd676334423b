"""Gains that are style alone, and gains that are not, in what `compare` and the report say."""

import json
import random

import pytest
from helpers.compare import FAST, contrast, items, only, row, write_run
from helpers.report_runs import write_run as write_reported

from isara_pl.cli.commands import run_command
from isara_pl.report.findings import as_text
from isara_pl.report.gather import gather
from isara_pl.results.items import INFORMED_PART, MEASURES, write_results
from isara_pl.results.run import Run


def with_blind(lines: list[dict], mc2: float, nll: float, noise: int) -> list[dict]:
    """Add blind figures that lie so much above those of the first run, and what is left."""
    first, own = items(0, 0, 1), random.Random(noise)
    for line, same in zip(lines, first, strict=True):
        blind = {"mc2": same["mc2"] + mc2, "answer_nll": same["answer_nll"] + 1 + nll}
        for name, value in blind.items():
            line[f"{name}_blind"] = value + own.gauss(0, 0.02)
            line[f"{name}_informed"] = line[name] - line[f"{name}_blind"]
    return lines


def measured(mc2: float, nll: float, noise: int, blind: tuple[float, float] = (0, 0)) -> list[dict]:
    return with_blind(items(mc2, nll, noise), *blind, noise)


@pytest.fixture
def compared(tmp_path):
    def give(**methods: list[dict]) -> dict:
        paths = [
            f"{name}={write_run(tmp_path / name, {0: measured(0, 0, 1), 1: lines}, generated=3)}"
            for name, lines in methods.items()
        ]
        run_command("compare", [*paths, *FAST, "--reference", "pretrained", "--json", str(tmp_path / "found.json")])
        return json.loads((tmp_path / "found.json").read_text())

    return give


def test_the_informed_part_is_a_measure_with_a_paired_interval(compared):
    lines = measured(0.1, -0.5, 2, (0.02, -0.1))
    found = compared(isara=lines)
    assert row(found, "isara")["values"]["mc2_informed"] == pytest.approx(
        sum(line["mc2"] - line["mc2_blind"] for line in lines) / len(lines)
    )
    tokens = sum(line["answer_tokens"] for line in lines)
    left = sum((line["answer_nll"] - line["answer_nll_blind"]) * line["answer_tokens"] for line in lines) / tokens
    assert row(found, "isara")["values"]["answer_nll_informed"] == pytest.approx(left)
    for measure, amount in (("mc2_informed", 0.08), ("answer_nll_informed", -0.4)):
        one = contrast(found, "isara", "pretrained", measure)
        assert one["conclusion"] == "better"
        assert one["difference"]["low"] < one["difference"]["difference"] < one["difference"]["high"]
        assert one["difference"]["difference"] == pytest.approx(amount, abs=0.05)
    assert MEASURES["mc2_informed"].higher_is_better
    assert {name: f"{name}_informed" for name in ("mc2", "binary", "answer_nll", "harm_preference")} == INFORMED_PART


@pytest.mark.parametrize(
    ("blind", "said"),
    [
        ((0.02, -0.1), ("more than style: the same answers gain less", "comes from the question.")),
        (
            (0.1, -0.5),
            ("style alone, as far as this data shows: the same answers gain about as much", "may be chance."),
        ),
        ((0.3, -0.9), ("style alone: the same answers gain even more", "takes less from the question, by ")),
    ],
    ids=["informed", "style alone", "less informed"],
)
def test_a_sentence_says_whether_a_gain_is_style_alone(compared, blind, said):
    sentences = only(compared(isara=measured(0.1, -0.5, 2, blind)))["sentences"]
    for label in ("MC2", "answer NLL"):
        (one,) = [text for text in sentences if text.startswith(f"The gain of isara over pretrained in {label} is ")]
        assert all(part in one for part in said)
        assert one.count("[") == 1


def test_with_many_methods_a_pair_has_one_sentence_of_a_kind(compared):
    found = compared(**{f"loop{number}": measured(0.1, -0.5, number, (0.1, -0.1)) for number in range(2, 7)})
    sentences = [text for text in only(found)["sentences"] if text.startswith("The gain of loop2 ")]
    assert sentences == [
        "The gain of loop2 over pretrained is style alone, as far as this data shows: MC2.",
        "The gain of loop2 over pretrained is more than style: answer NLL.",
    ]


def test_where_nothing_is_gained_nothing_is_said_of_style(compared):
    sentences = only(compared(isara=measured(-0.1, 0.5, 2, (0.2, -0.5))))["sentences"]
    assert not [text for text in sentences if "style" in text]


def test_runs_from_before_the_control_are_read_and_compared(compared, tmp_path):
    found = compared(isara=items(0.1, -0.5, 2), later=measured(0.1, -0.5, 3))
    assert "mc2_informed" not in row(found, "isara")["values"]
    assert contrast(found, "isara", "pretrained", "mc2")["conclusion"] == "better"
    sentences = only(found)["sentences"]
    assert not [text for text in sentences if text.startswith("The gain of isara")]
    assert [text for text in sentences if text.startswith("The gain of later over pretrained in MC2 is ")]


# -- the report


def reported(folder, blind_nll: float):
    """Write a run whose answer NLL falls by 0.3, and by so much where another question is asked."""
    write_reported(folder, {0: 0.5, 1: 0.2}, candidates=0, outer_epochs=1, taken=None)
    for outer_epoch, fallen in ((0, 0.0), (1, blind_nll)):
        lines = Run(folder).items["truthfulness"]
        own = random.Random(outer_epoch)
        found = []
        for line in [one for one in lines if one.outer_epoch == outer_epoch]:
            nll = line.figures["answer_nll"]
            left = -1.0 - (0.3 if outer_epoch else 0.0) + fallen + own.gauss(0, 0.05)
            more = {"answer_nll_blind": nll.value - left, "answer_nll_informed": left}
            found.append(
                {
                    "id": line.question, "question": line.question, "seeds": line.seeds, "demonstrations": [],
                    "contaminated": None, "answer_nll": nll.value, "answer_tokens": int(nll.weight), **more,
                }
            )  # fmt: skip
        write_results(folder, "truthfulness", outer_epoch, found)
    return next(iter(gather(Run(folder), [], None).findings))


def test_the_headline_says_that_a_gain_is_style_alone(tmp_path):
    style, informed = reported(tmp_path / "style", 0.3), reported(tmp_path / "informed", 0.0)
    assert style.answer.endswith(
        "But as far as this data shows, the gain in how likely it finds the given answers is style alone: it is about as "
        "large when the same answers are given to another question, which they do not answer."
    )
    assert style.tone == "unsure"
    assert informed.tone == "good"
    assert "style" not in informed.answer
    for finding, said in ((style, "style alone, as far as"), (informed, "more than style:")):
        assert ("mostly mean that the model has taken on their style" in as_text([finding])) == (finding is style)
        assert f"The gain of outer epoch 1 over the pretrained model in answer NLL is {said}" in as_text([finding])
