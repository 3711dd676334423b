"""Figures by category of the items: in the JSON of compare, and in the report."""

import json

import pytest
from helpers.compare import FAST, items
from helpers.compare import write_run as write_measured
from helpers.report_runs import write_run

from isara_pl.cli.commands import run_command
from isara_pl.report import tables
from isara_pl.report.gather import gather
from isara_pl.report.page import render
from isara_pl.results.items import write_results
from isara_pl.results.run import Run


def of_categories(lines: list[dict]) -> list[dict]:
    """Give the first 20 of 60 items to one category, the next 19 to another, the last to none, with more NLL."""
    names = ["law"] * 20 + ["tea"] * 19 + [None] * 21
    return [{**line, "category": name} for line, name in zip(lines, names, strict=True)]


@pytest.fixture
def runs(tmp_path):
    before, after = items(0, 0, 1), items(0, 0.5, 2)
    after[0]["contaminated"] = True
    measured = {0: of_categories(before), 1: of_categories(after)}
    return [write_measured(tmp_path / "isara", measured, generated=2)], measured


def test_compare_gives_categories_with_at_least_twenty_items_in_its_json(runs, tmp_path, capsys):
    given, measured = runs
    run_command("compare", [*given, *FAST, "--json", str(tmp_path / "found.json")])
    assert "law" not in capsys.readouterr().out
    (law,) = json.loads((tmp_path / "found.json").read_text())["categories"]["truthfulness"]
    assert (law["category"], law["items"]) == ("law", 20)
    means = {}
    for method, outer_epoch in (("pretrained", 0), ("isara", 1)):
        own = measured[outer_epoch][:20]
        tokens = sum(line["answer_tokens"] for line in own)
        means[method] = sum(line["answer_nll"] * line["answer_tokens"] for line in own) / tokens
        assert law["values"][method]["answer_nll"] == pytest.approx(means[method])
    (contrast,) = [one for one in law["contrasts"] if one["measure"] == "answer_nll"]
    assert (contrast["method"], contrast["reference"], contrast["conclusion"]) == ("isara", "pretrained", "worse")
    assert contrast["difference"]["difference"] == pytest.approx(means["isara"] - means["pretrained"])


def test_contaminated_items_are_left_out_of_categories_too(runs, tmp_path):
    run_command("compare", [*runs[0], *FAST, "--clean", "--json", str(tmp_path / "found.json")])
    assert json.loads((tmp_path / "found.json").read_text())["categories"] == {"truthfulness": []}  # 19 are left


def test_the_report_has_a_table_of_them(tmp_path):
    folder = write_run(tmp_path / "run", {0: 0.0, 1: -0.5})
    for outer_epoch, nll in ((0, 0.0), (1, -0.5)):
        write_results(folder, "truthfulness", outer_epoch, of_categories(items(0, nll, outer_epoch)))
    report = gather(Run(folder), [], None)
    heads, rows = tables.categories(report)
    assert len(heads) == 8
    mc2, nll = rows
    assert nll[:4] == ["law", "truthfulness", "20", "answer NLL ↓"]
    assert nll[-1] == "better"
    assert float(nll[5]) - float(nll[4]) == pytest.approx(float(nll[6].split()[0]), abs=0.002)
    assert mc2[3] == "MC2 ↑"
    assert "By category of the items" in render(report)


def test_without_categories_the_report_has_no_table(tmp_path):
    report = gather(Run(write_run(tmp_path / "run", {0: 0.0, 1: -0.5})), [], None)
    assert report.categories == {}
    assert "By category of the items" not in render(report)
