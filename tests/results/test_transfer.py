"""The matrix of domains, from run folders made without a run."""

import pytest

from isara_pl.results.compare import as_markdown
from isara_pl.results.items import write_results
from isara_pl.results.run import Run
from isara_pl.results.transfer import matrices, transfer


def item(domain: str, number: int, nll: float, **more) -> dict:
    return {
        "id": f"{domain}-{number}",
        "question": f"What is {domain} {number}?",
        "category": domain,
        "seeds": "of the run",
        "demonstrations": [],
        "contaminated": None,
        "answer_nll": nll,
        "answer_tokens": 1 + number % 3,
        **more,
    }


def write_run(folder, changes: dict[str, float], with_mc2: str = "") -> Run:
    """Write a run whose training changes the NLL of each domain by so much, a little more for later items."""
    for outer_epoch in (0, 1):
        lines = [
            item(
                domain,
                number,
                2.0 + number / 10 + outer_epoch * (change + number / 1000),
                **({"mc2": 0.5} if domain == with_mc2 else {}),
            )
            for domain, change in changes.items()
            for number in range(10)
        ]
        write_results(folder, "truthfulness", outer_epoch, lines)
    return Run(folder)


@pytest.fixture
def runs(tmp_path):
    return [
        ("a", "sft", write_run(tmp_path / "a", {"a": -1.0, "b": 0.5}, with_mc2="a")),
        ("b", "sft", write_run(tmp_path / "b", {"a": 0.25, "b": -0.5}, with_mc2="a")),
    ]


def test_a_cell_is_the_trained_model_minus_the_pretrained_one_on_that_domain(runs):
    cells = {(cell.trained_on, cell.measured_on): cell for cell in transfer(runs, "truthfulness", resamples=200)}
    weights = [1 + number % 3 for number in range(10)]
    more = sum(weight * number / 1000 for number, weight in enumerate(weights)) / sum(weights)
    for of, change in {("a", "a"): -1.0, ("a", "b"): 0.5, ("b", "a"): 0.25, ("b", "b"): -0.5}.items():
        cell = cells[of]
        (contrast,) = [one for one in cell.contrasts if one.measure == "answer_nll"]
        assert contrast.difference.difference == pytest.approx(change + more)
        assert contrast.difference.low < change + more < contrast.difference.high
        assert contrast.conclusion == ("better" if change < 0 else "worse")
        assert cell.trained["answer_nll"] - cell.pretrained["answer_nll"] == pytest.approx(change + more)
        assert cell.items == 10


def test_the_matrix_has_a_row_for_each_domain_trained_on_and_a_table_for_each_measure(runs):
    (section,) = matrices(transfer(runs, "truthfulness", resamples=200))
    nll, mc2 = section.tables
    assert nll.head == ("answer NLL ↓, trained on", "measured on a", "measured on b")
    assert [row[0] for row in nll.rows] == ["a", "b"]
    assert nll.rows[0][1].startswith("-0.995 [")
    assert nll.rows[0][1].endswith("better")
    assert nll.rows[0][2].endswith("worse")
    assert [row[1:] for row in mc2.rows] == [("+0.000 [+0.000, +0.000] cannot tell", "-")] * 2
    assert "| b | +0.255 [" in as_markdown([section])


def test_in_context_learning_is_held_against_the_pretrained_model_of_the_other_runs(runs, tmp_path):
    shown = [{**item(name, number, 1.5), "demonstrations": ["seed-0"]} for name in "ab" for number in range(10)]
    write_results(tmp_path / "icl", "truthfulness", 0, shown)
    write_results(tmp_path / "plain", "truthfulness", 0, [item(name, n, 2.0) for name in "ab" for n in range(10)])
    given = [*runs, ("a", "icl", Run(tmp_path / "icl")), ("a", "pretrained", Run(tmp_path / "plain"))]
    cells = transfer(given, "truthfulness", resamples=200)
    assert [(cell.method, cell.trained_on) for cell in cells] == [
        *([("sft", "a")] * 2), *([("sft", "b")] * 2), *([("icl", "a")] * 2)
    ]  # fmt: skip
    assert all(cell.trained["answer_nll"] == 1.5 for cell in cells[4:])
