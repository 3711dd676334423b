"""The page of a report, as a reader's browser shows it."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import chromium, opened

from isara_pl.report import charts, page
from isara_pl.report.contents import Curve, DiversityRow, Finding, GrownOuterEpoch, Report, SampleRow
from isara_pl.results.answers import Answered
from isara_pl.results.ledger import LedgerRow

SCRIPT = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1> \"' {{7*7}} \u2028\u202e\x00\ud800"
)
HOSTILE = (
    SCRIPT,
    "<b>&amp;%{x}</b>",
    "__proto__",
)  # the second is markup for Plotly, the third for JavaScript's objects
SEEDS = 4


def sample(name: str, outer_epoch: int = 0, **more: Any) -> SampleRow:
    status = "accepted" if outer_epoch else "seed"
    empty = {"category": None, "filter": None, "reason": None, "figure": None, "scores": {}}
    empty |= {"question_demonstrations": (), "answer_demonstrations": (), "flags": (), "x": 0.1, "y": outer_epoch}
    texts = {"question": f"What is {name}?", "answer": f"It is {name}."}
    return SampleRow(**{"id": name, "status": status, "outer_epoch": outer_epoch, **empty, **texts, **more})


def whole(outer_epoch: int, seconds: float, **more: float) -> LedgerRow:
    return LedgerRow(seconds, outer_epoch=outer_epoch, stage="all", **more)


def make_report(**changes: Any) -> Report:
    """Give a report of two outer epochs of 40 samples.

    1-00007 is flagged and was written from seeds, 2-00001 from it and one that is missing; a and b from each other.
    """
    samples = [sample(f"seed-{i:05d}", category="food" if i else "sports") for i in range(SEEDS)]
    origin = {"question_demonstrations": (0, 1), "answer_demonstrations": (2,), "scores": {"NearDuplicate": 0.25}}
    samples += [sample(f"1-{i:05d}", 1, category="food", **origin) for i in range(40)]
    samples[SEEDS + 7] = replace(samples[SEEDS + 7], flags=("repeats itself",))
    later = {"question_demonstrations": (SEEDS + 7, 3), "answer_demonstrations": (-1,)}
    samples += [sample(f"2-{i:05d}", 2, **later) for i in range(40)]
    judged = {"status": "rejected", "filter": "NearDuplicate", "figure": 0.83, "x": None, "y": None}
    samples += [sample("a", 2, question_demonstrations=(85,)), sample("b", 2, answer_demonstrations=(84, 85))]
    samples += [sample(f"2-{40 + i:05d}", 2, **judged, reason=("too near", "equal")[i]) for i in range(2)]
    report = Report(
        title="my_run",
        about=[("Model", "a model")],
        answers=[Answered(f"Question {n}?", "Given.", "Before.", "After.", 2, 0.5 - n) for n in range(5)],
        findings=[Finding("What to look at first?", "1-00007.", ["Not 1-99999."], "good")],
        curves=[
            Curve("answer_nll", "answer NLL", False, [0, 1, 2], [2.5, None, 2.25], {"sft": 2.3}),
            Curve("mc2", "MC2", True, [0, 1, 2], [0.45, 0.5, math.nan], {}),
        ],
        grown=[
            GrownOuterEpoch(1, 40, 40, {"NearDuplicate": 0}, True),
            GrownOuterEpoch(2, 42, 40, {"NearDuplicate": 2}, False),
        ],
        alpha=0.2,
        spent=[
            LedgerRow(61.0, 70.0, 900, 300, 3 * 10**12, 2**30, 40, outer_epoch=e, stage=name, cost=0.5)
            for e in (1, 2)
            for name in ("answers", "x")
        ],
        totals=[
            whole(1, 3700.0, cost=1.5, seconds_per_accepted=2.0, cost_per_accepted=0.01, break_even_queries=812.0),
            whole(2, 9.5),
        ],
        diversity=[DiversityRow(e, 40, {"vendi_score": 9.0 - e, "copy_rate": None, "new": 1.0}) for e in range(3)],
        samples=samples,
        worth_a_look=[SEEDS + 7],
        map_note="Principal components.",
        facts=[("seed_everything", "7")],
    )
    return replace(report, **changes)


def written(folder: Path, report: Report) -> Path:
    path = folder / "report.html"
    path.write_text(page.render(report), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shared(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with opened(browser, written(tmp_path_factory.mktemp("page"), make_report())) as page_of_report:
        yield page_of_report


@pytest.fixture
def shown(shared: Any) -> Any:
    """Give the page of `make_report`. It takes a second or two to open: tests share it, each begins without a filter."""
    shared.get_by_role("button", name="Clear").click()
    return shared


def ids(shown: Any) -> list[str]:
    return shown.locator("#rows a").all_inner_texts()


def found(shown: Any, number: int) -> None:
    shown.get_by_text(re.compile(rf"^{number} of \d+$")).wait_for()


def drawn(shown: Any) -> None:
    shown.locator("#map-chart .main-svg").first.wait_for()  # the last one


def test_search_filters_sorting_and_pages(shown: Any) -> None:
    found(shown, 88)
    assert len(ids(shown)) == 50
    shown.get_by_label("Next page").click()
    assert len(ids(shown)) == 38
    search = shown.get_by_label("Search in question")
    search.fill("IT IS 1-0000")  # of an answer
    found(shown, 10)
    search.fill("seed-00002")
    found(shown, 1)
    assert ids(shown) == ["seed-00002"]
    search.fill("<no such>")
    shown.get_by_text("Nothing matches.").wait_for()
    shown.get_by_role("button", name="Clear").click()
    found(shown, 88)
    for label, choice, number in (
        ("Status", "rejected (2)", 2),
        ("Outer epoch", "1", 40),
        ("Category", "sports (1)", 1),
        ("Rejected by", "\u2003equal (1)", 1),
        ("Flag", "any flag", 1),
    ):
        box = shown.locator("#search").get_by_role("combobox", name=label)
        box.select_option(label=choice)
        found(shown, number)
        box.select_option(label="all")
    shown.get_by_role("button", name="Id", exact=True).click()
    shown.get_by_role("button", name="Id", exact=True).click()
    assert ids(shown)[:2] == ["seed-00003", "seed-00002"]
    assert shown.locator("th[aria-sort=descending]").inner_text().startswith("Id")


def test_a_flagged_sample_leads_back_to_its_seeds(shown: Any) -> None:
    detail = shown.get_by_role("dialog", name="1-00007")
    assert shown.locator(".finding a").all_inner_texts() == ["1-00007"]
    shown.locator(".finding a").click()
    detail.wait_for()
    shown.keyboard.press("Escape")
    shown.get_by_role("link", name="see where it came from").click()
    for words in ("repeats itself", "It goes back to 3 seeds, directly.", "0.25"):
        assert words in detail.inner_text()
    detail.locator("summary", has_text="seed-00001").click(position={"x": 4, "y": 8})
    detail.get_by_text("It is seed-00001.").wait_for()
    detail.get_by_role("link", name="seed-00002").click()
    shown.get_by_role("dialog", name="seed-00002").get_by_text("A person gave it").wait_for()
    shown.go_back()
    shown.get_by_role("dialog", name="1-00007").wait_for()
    shown.keyboard.press("Escape")
    shown.wait_for_url(lambda url: "#sample" not in url)
    assert shown.get_by_role("dialog").count() == 0
    shown.go_back()  # what was closed is found again
    shown.get_by_role("dialog", name="1-00007").wait_for()
    shown.get_by_role("button", name="Close").click()


def test_lineage_over_outer_epochs_by_the_keyboard(shown: Any) -> None:
    shown.get_by_label("Search in question").fill("2-00001")
    found(shown, 1)
    shown.locator("#rows a").focus()
    shown.keyboard.press("Enter")
    detail = shown.get_by_role("dialog", name="2-00001")
    assert "4 seeds, over 1 other sample." in detail.inner_text()
    assert "not in the files of this run" in detail.inner_text()
    detail.locator("summary", has_text="1-00007").focus()
    shown.keyboard.press("Enter")
    detail.get_by_role("link", name="seed-00000").wait_for()
    shown.evaluate("location.hash = '#sample=a'")  # a and b refer to each other, and b to itself
    detail = shown.get_by_role("dialog", name="a", exact=True)
    detail.locator("summary").click(position={"x": 4, "y": 8})
    detail.get_by_text("in a circle").nth(1).wait_for()
    shown.evaluate("location.hash = '#sample=%E0no-such'")
    detail.wait_for(state="hidden")
    shown.evaluate("location.hash = '#sample=no-such'")
    shown.get_by_text("This report has no sample of this id.").wait_for()
    shown.keyboard.press("Escape")


def test_figures_stand_in_charts_and_tables(shown: Any) -> None:
    drawn(shown)
    assert "sft: 2.3" in shown.locator("#curve").inner_text()
    assert "α = 0.2" in shown.locator("#novelty").inner_text()
    assert "−2 (5 %)" in shown.locator("#waterfall").inner_text()
    shown.locator("#waterfall-choice").select_option(label="1")
    assert "40 (100 %)" in shown.locator("#waterfall").inner_text()
    shown.locator("#curve-choice").select_option(label="MC2")
    assert shown.locator("#curve-note").inner_text() == "Higher is better."
    assert shown.locator("#map-chart .scatterlayer .point").count() == 86
    shown.get_by_text("All figures as a table").click()
    table = shown.get_by_role("table", name=re.compile("^Figures by outer epoch"))
    assert table.locator("tr").all_inner_texts() == [
        "\tanswer NLL ↓\tMC2 ↑",
        "pretrained\t2.5\t0.45",
        "outer epoch 1\t–\t0.5",
        "outer epoch 2\t2.25\t–",
        "baseline sft\t2.3\t–",
    ]
    assert "1 h 1 min" in shown.get_by_role("table", name=re.compile("^What each outer epoch cost")).inner_text()


def test_light_dark_and_the_width_of_a_phone(shown: Any) -> None:
    drawn(shown)

    def colours() -> set[str]:
        ground = "getComputedStyle(document.body).backgroundColor"
        return {shown.evaluate(ground), shown.evaluate("document.querySelector('#spent .ytick text').style.fill")}

    light = colours()
    shown.emulate_media(color_scheme="dark")
    dark = colours()
    assert not light & dark
    shown.get_by_role("button", name="Light").click()
    assert colours() == light
    shown.set_viewport_size({"width": 375, "height": 700})
    assert shown.evaluate("document.documentElement.scrollWidth") == 375
    shown.locator("#spent .main-svg:not([width^='1'])").first.wait_for()  # the chart had over 1000 pixels


def test_on_paper_stand_the_verdict_the_answers_the_figures_and_ten_samples(browser: Any, tmp_path: Path) -> None:
    long = "A long answer of many words, as models write them. " * 20
    answers = [Answered(f"Question {n}?", long, long, long, 2, None) for n in range(10)]
    with opened(browser, written(tmp_path, make_report(answers=answers))) as shown:
        drawn(shown)
        paper = shown.pdf(format="A4")
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 3
        shown.evaluate("dispatchEvent(new Event('beforeprint'))")
        shown.emulate_media(media="print")
        assert shown.locator("#answers .answered:visible").count() == 10
        assert shown.locator("#look-list > li:visible").count() == 10
        assert shown.locator("#map:visible, #samples:visible, #filters:visible").count() == 0
        for chart in ("#curve", "#novelty"):  # whole ones
            width = f"document.querySelector('{chart} .main-svg').getBoundingClientRect().width"
            assert shown.evaluate(width) <= shown.evaluate(f"document.querySelector('{chart}').offsetWidth")
        shown.emulate_media(media="screen")
        shown.evaluate("dispatchEvent(new Event('afterprint'))")
        assert shown.locator("#answers .answered:visible").count() == 3


def test_what_the_model_wrote_comes_first_and_what_was_rejected_is_a_click_away(browser: Any, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, make_report())) as shown:
        assert ids(shown)[0] == "1-00000"
        shown.get_by_role("button", name="2 written and rejected").click()
        found(shown, 2)
        shown.get_by_role("button", name="4 given (seeds)").click()
        found(shown, 4)


def hostile_report() -> Report:
    """Give a report with hostile texts in every field that takes a text."""
    rows = []
    for text in HOSTILE:
        more = {"category": text, "filter": text, "reason": text, "scores": {text: 1.0}, "flags": (text,)}
        rows.append(sample(text, 1, question=text, answer=text, question_demonstrations=(1,), **more))
    return Report(
        title=SCRIPT,
        about=[(text, text) for text in HOSTILE],
        answers=[Answered(text, text, text, text, 1, None) for text in HOSTILE],
        findings=[Finding(text, text, [text], "bad") for text in (SCRIPT, *HOSTILE)],
        curves=[Curve(text, text, None, [0, 1], [1.0, 2.0], dict.fromkeys(HOSTILE, 1.5)) for text in HOSTILE],
        grown=[GrownOuterEpoch(1, 6, 3, dict.fromkeys(HOSTILE, 1), True)],
        alpha=0.2,
        spent=[LedgerRow(1.0, 1.0, 1, 1, 1, 1, 1, outer_epoch=1, stage=text, cost=1.0) for text in HOSTILE],
        totals=[whole(1, 1.0, cost=1.0, seconds_per_accepted=1.0, cost_per_accepted=1.0, break_even_queries=1.0)],
        diversity=[DiversityRow(1, 1, {**dict.fromkeys(HOSTILE, 1.0), "vendi_score": 1.0})],
        samples=rows + [replace(row, id=f"{row.id}2", status="rejected", x=None) for row in rows],
        worth_a_look=[0, 1, 2],
        map_note=SCRIPT,
        facts=[(text, text) for text in HOSTILE],
    )


def test_hostile_text_is_shown_and_not_run(browser: Any, tmp_path: Path) -> None:
    path = written(tmp_path, hostile_report())
    script, markup, key = SCRIPT[:70], *HOSTILE[1:]  # a choice shows the first 80 characters
    with opened(browser, path, f"#sample={key}") as shown:
        assert shown.get_by_role("dialog").locator("#full-answer").inner_text() == key
        shown.keyboard.press("Escape")
        drawn(shown)
        assert shown.title().startswith(script)
        everywhere = (
            ".run",
            "#answers",
            ".findings",
            "#rows",
            "#look-list",
            "#of-category",
            "#of-reason",
            "#curve-choice",
        )
        for text, places in ((script, ("h1", ".verdict", "#map", ".facts")), (markup, ()), (key, ())):
            for place in (*places, *everywhere):
                assert text in shown.locator(place).text_content()
        for text in (script[:20], markup, key):  # Plotly's labels are cut
            assert shown.locator("#waterfall .ytick text", has_text=text).count() == 1
            assert shown.locator("#spent .ytick text", has_text=text).count() == 1
            assert shown.locator("#curve .legendtext", has_text=text).count() == 1
        shown.locator("#map-chart .scatterlayer .point").first.hover(force=True)
        shown.locator("#hover", has_text=key).wait_for()  # the last of three that lie in one place
        shown.locator("#rows a").first.click()
        assert script in shown.get_by_role("dialog").locator("#full-question").text_content()
        assert shown.evaluate("window.hacked") is None
        assert shown.locator("img").count() == 0


def test_a_script_that_got_into_the_page_would_not_run(browser: Any, tmp_path: Path) -> None:
    path = written(tmp_path, make_report())
    markup = re.sub("<script>.*</script>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    path.write_text(markup.replace("<main>", "<main><script>hacked = 1</script><b onclick='hacked = 1'>x</b>"))
    hacked = []

    def click() -> None:
        with opened(browser, path) as shown:
            shown.locator("main > b").click()
            hacked.append(shown.evaluate("window.hacked"))

    with pytest.raises(AssertionError, match="Content Security Policy"):
        click()
    assert hacked == [None]


@pytest.mark.parametrize("webgl", [True, False])
def test_a_page_without_measurements_and_with_a_large_map(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, webgl: bool
) -> None:
    assert "unsafe-eval" not in page.render(make_report()).split("</head>")[0]
    monkeypatch.setattr(charts, "MOST_SVG_POINTS", 10)
    curve = Curve("mc2", "MC2", None, [0], [math.inf], {})
    report = make_report(
        curves=[curve], diversity=[], spent=[], grown=[GrownOuterEpoch(1, 0, 0, {}, False)], alpha=None
    )
    without = "" if webgl else "HTMLCanvasElement.prototype.getContext = () => null"
    with opened(browser, written(tmp_path, report), before=without) as shown:
        shown.get_by_text("Nothing is known about the diversity").wait_for()
        drawn(shown)
        chart, points = shown.locator("#map-chart"), shown.locator("#map-chart .scatterlayer .point").count()
        if webgl and chart.locator(".gl-canvas").count():  # not every machine has it
            assert points == 0
        else:
            assert "every 9th of 86" in shown.locator("#map-thinned").inner_text()
            assert points == 10
        assert "WebGL is not supported" not in chart.inner_text()


def test_a_page_of_next_to_nothing_says_so(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "get_plotlyjs", lambda: "")  # there is nothing to draw
    nothing = {
        name: []
        for name in (
            "about",
            "answers",
            "findings",
            "curves",
            "grown",
            "spent",
            "totals",
            "diversity",
            "samples",
            "facts",
        )
    }
    report = make_report(**nothing, worth_a_look=[], alpha=None, map_note="")
    with opened(browser, written(tmp_path, report)) as shown:
        for words in (
            "Nothing was measured yet.",
            "No candidates were judged yet.",
            "No candidates were judged: the run",
            "There is no map.",
            "Nothing is known about the diversity",
            "no record of what it cost",
            "No sample was flagged.",
            "The pool of this run is empty.",
            "The options of this run are not known.",
        ):
            assert shown.get_by_text(words).is_visible()


def test_equal_reports_give_equal_files() -> None:
    assert page.render(make_report()) == page.render(make_report())
