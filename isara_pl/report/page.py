"""One self-contained HTML file that shows a report.

What the files of a run hold is hostile text. Jinja2 escapes it in the markup; JSON carries it to the scripts, with
every character escaped that HTML reads; the scripts make text nodes of it. Behind that stands a content security
policy: no script runs but those whose hashes it names, and nothing is fetched.
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # plotly ships no types

from isara_pl.growth.retrieval import Encoder
from isara_pl.report import charts, page, tables
from isara_pl.report.charts import Chart, rounded
from isara_pl.report.contents import Report, SampleRow
from isara_pl.report.gather import gather
from isara_pl.report.harmless import harmless_against_helpful
from isara_pl.results.run import Run
from isara_pl.run.files import write_whole

_PARTS = Path(__file__).with_name("page")
_SCRIPTS = ("elements.js", "charts.js", "sample.js", "table.js", "start.js")
ANSWERS_SHOWN = 3  # the others are a click away
_STATUSES = ("seed", "accepted", "rejected")
_READ_BY_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render(report: Report) -> str:
    """Give the page as the text of an HTML file that needs nothing but itself; the same for equal reports."""
    plotly = get_plotlyjs()
    own = "(() => {\n" + "\n".join(source(name) for name in _SCRIPTS) + "})();\n"
    drawn = {**charts.charts(report), "harmless": harmless_against_helpful(report.curves)}
    webgl = any(trace["type"] == "scattergl" for chart in drawn[charts.MAP] for trace in chart.data)
    text = template("page.html").render(
        report=report,
        tables=tables,
        charts=drawn,
        ANSWERS_SHOWN=ANSWERS_SHOWN,
        filters=[*dict.fromkeys(name for row in report.grown for name in row.taken)],
        policy=_policy((plotly, own), webgl),
        style=Markup(source("style.css")),
        plotly=Markup(plotly),
        script=Markup(own),
        data=Markup(_json(_data(report, drawn))),
    )
    # half a character (a lone surrogate), which JSON can hold and a file cannot, becomes U+FFFD
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def template(name: str) -> Template:
    """Give a template of `page/`, which writes what is not markup as text and refuses names that it is not given."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source(name))


def source(name: str) -> str:
    """Give a file of `page/` as text."""
    return (_PARTS / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str], webgl: bool) -> str:
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    # Plotly compiles its drawing commands for WebGL by `new Function`, of its own code only. A page without WebGL
    # does not allow it. Styles are inline because Plotly sets them on its elements; blob: is its download of a picture.
    script_src = f"{hashes} 'unsafe-eval'" if webgl else hashes
    return (
        f"default-src 'none'; script-src {script_src}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _json(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in _READ_BY_HTML.items():
        text = text.replace(character, escaped)
    return text


def _data(report: Report, drawn: Mapping[str, Sequence[Chart]]) -> dict[str, Any]:
    """Give what the scripts read. No name from a run is a key: `__proto__` is one that JavaScript would understand."""
    return {
        "charts": {place: [vars(chart) for chart in of_place] for place, of_place in drawn.items()},
        "template": charts.TEMPLATE,
        "most_svg_points": charts.MOST_SVG_POINTS,
        "samples": _columns(report.samples),
        "worth_a_look": [*report.worth_a_look],
    }


def _columns(samples: Sequence[SampleRow]) -> dict[str, Any]:
    """Give a list for each field, and each repeated text once: a third of the size of one object a sample."""
    scores = [*dict.fromkeys(name for sample in samples for name in sample.scores)]
    flags = {flag: place for place, flag in enumerate(dict.fromkeys(f for sample in samples for f in sample.flags))}
    return {
        "id": [sample.id for sample in samples],
        "status": [_STATUSES.index(sample.status) for sample in samples],
        "outer_epoch": [sample.outer_epoch for sample in samples],
        "question": [sample.question for sample in samples],
        "answer": [sample.answer for sample in samples],
        "category": _coded([sample.category for sample in samples]),
        "filter": _coded([sample.filter for sample in samples]),
        "reason": _coded([sample.reason for sample in samples]),
        "figure": [rounded(sample.figure) for sample in samples],
        "scores": {
            "names": scores,
            "rows": [[rounded(row.scores.get(name)) for name in scores] if row.scores else [] for row in samples],
        },
        "flags": {"names": [*flags], "codes": [[flags[flag] for flag in sample.flags] for sample in samples]},
        "question_demonstrations": [[*sample.question_demonstrations] for sample in samples],
        "answer_demonstrations": [[*sample.answer_demonstrations] for sample in samples],
    }


def _coded(values: Sequence[str | None]) -> dict[str, list[Any]]:
    """Give the distinct texts, and the place of each value among them; -1 for None."""
    places: dict[str, int] = {}
    codes = [-1 if value is None else places.setdefault(value, len(places)) for value in values]
    return {"names": [*places], "codes": codes}


FILE = "report.html"


def write_report(run: Run, baselines: Sequence[tuple[str, Path]], encoder: Encoder | None, target: Path) -> Report:
    """Write the report of a run to a file, and give what it shows; `gather` says of what.

    Raises:
        InputError: If a folder cannot be reported on, or the file cannot be written.
    """
    report = gather(run, baselines, encoder)
    write_whole(target, page.render(report))
    return report
