"""The charts of the page, as figures for Plotly: values of its JSON schema.

A colour that begins with -- is one of page/style.css; page/charts.js looks it up, since the theme may change. Plotly
reads markup in its texts: what comes from a run gets there through `plain` only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isara_pl.report.contents import SHARES, Curve, DiversityRow, GrownOuterEpoch, Report, SampleRow, count, figure
from isara_pl.results.metrics import outer_epoch_name

MAP = "map-chart"
# what a browser draws as SVG without delay; more are drawn by WebGL
MOST_SVG_POINTS = 5000
ACCENT, _BAD, _INK, MUTED, _LINE = "--accent", "--bad", "--ink", "--muted", "--line"
# Okabe and Ito's colours, which colour-blind people tell apart, without the ones that vanish on white or black
COLOURS = ("#2f7fc1", "#e08e0b", "#0f9d75", "#c76a9f", "#d1552a", "#4fb0e0")
_DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
_PATTERNS = ("", "/", "\\", "x", "-", "|", ".")
SIGNS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon", "star")
_DIRECTIONS = {True: "Higher is better.", False: "Lower is better.", None: ""}
# name, label and meaning of what is drawn, in the order of reading; the table has the other figures too
_DIVERSITY = (
    (
        "nearest_seed_cosine",
        "Nearness to the seeds",
        "Mean cosine with the nearest seed. Rising: it repeats the seeds.",
    ),
    ("nearest_pool_cosine", "Nearness to one another", "Mean cosine with the nearest other one. Rising: it collapses."),
    ("vendi_score", "Vendi score", "How many different questions there are, in effect; grows with the samples."),
    (
        "distinct_2_questions",
        "Distinct word pairs in questions",
        "Different pairs ÷ all pairs; falls with the samples.",
    ),
    ("distinct_2_answers", "Distinct word pairs in answers", "Different pairs ÷ all pairs; falls with the samples."),
    ("answer_words", "Length of answers", "Mean number of words; of characters where a script has no spaces."),
    ("refusal_rate", "Refusals", "Share of answers that decline to answer; a rule of thumb, in English."),
    ("copy_rate", "Copies", "Share of answers that one of their demonstrations had."),
)
# whether higher is better, which of those grow or fall with the number of samples, and which are shares
_BETTER = {
    **dict.fromkeys(("vendi_score", "distinct_2_questions", "distinct_2_answers"), True),
    **dict.fromkeys(("nearest_seed_cosine", "nearest_pool_cosine", "refusal_rate", "copy_rate"), False),
}
_BY_NUMBER = ("vendi_score", "distinct_2_questions", "distinct_2_answers")
HARDLY = 0.05  # what the seeds' figure may be worsened by
_MEASURES = {
    "wall_seconds": "Time",
    "generated_tokens": "Generated tokens",
    "prompt_tokens": "Prompt tokens",
    "cpu_seconds": "Processor time",
    "flops": "Computing operations (FLOP)",
    "cost": "Cost",
}
_AXIS = {
    "title": {"standoff": 8, "font": {"color": MUTED, "size": 12.5}},
    "automargin": True,
    "fixedrange": True,
    "zeroline": False,
    "gridcolor": _LINE,
    "showline": True,
    "linecolor": _LINE,
    "ticks": "outside",
    "tickcolor": _LINE,
    "tickfont": {"color": MUTED},
}
# what a layout does not say
TEMPLATE = {
    "layout": {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 52, "r": 14, "t": 14, "b": 40},
        "font": {
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif",
            "size": 12.5,
            "color": _INK,
        },
        "hoverlabel": {"bgcolor": _INK, "bordercolor": _INK, "font": {"color": "--surface"}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": ACCENT},
        "legend": {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top", "font": {"color": _INK}},
        "dragmode": False,
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
}
Part = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A figure, and what the page says of it: for screen readers, among others to choose from, and beside it."""

    label: str
    data: Sequence[Part]
    layout: Part
    name: str = ""
    note: str = ""
    height: int | None = None  # pixels; else as its place is


def charts(report: Report) -> dict[str, list[Chart]]:
    """Give the charts by the id of their place on the page; of several a reader chooses one."""
    drawn = [one for one in _DIVERSITY if any(row.figures.get(one[0]) is not None for row in report.diversity)]
    return {
        "curve": [_curve(one) for one in report.curves],
        "novelty": [_novelty(report.grown, report.alpha)] if report.grown else [],
        "waterfall": [_waterfall(row) for row in report.grown],
        **{f"diversity-{place}": [_diversity(report.diversity, *one)] for place, one in enumerate(drawn)},
        "spent": [
            _spent(report, measure) for measure in _MEASURES if any(getattr(row, measure) for row in report.spent)
        ],
        MAP: _map(report.samples),
    }


def rounded(value: float | None) -> float | None:
    """Give a figure to six digits, as a page needs it."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _curve(curve: Curve) -> Chart:
    x = _outer_epochs(curve.outer_epochs, "pretrained")
    levels = []
    for place, (name, value) in enumerate(curve.baselines.items()):
        line = {"dash": nth(_DASHES, place), "color": nth(COLOURS, place + 1)}
        levels.append(_level(x, rounded(value), f"{plain(name, 24)}: {figure(value)}", line))
    own = {
        **_points(curve.outer_epochs, [rounded(value) for value in curve.values]),
        "name": "this run",
        "marker": {"size": 8},
        "hovertemplate": "%{y:.4g}<extra></extra>",
    }
    return Chart(
        label=f"{curve.label} by outer epoch; the table below has the values",
        data=[own, *levels],
        layout={"xaxis": x, "yaxis": titled(plain(curve.label)), "showlegend": bool(levels)},
        name=curve.label,
        note=_DIRECTIONS[curve.higher_is_better],
    )


def _novelty(grown: Sequence[GrownOuterEpoch], alpha: float | None) -> Chart:
    numbers = [row.outer_epoch for row in grown]
    x = _outer_epochs(numbers, "")
    own = {
        **_points(numbers, [row.novelty for row in grown]),
        "name": "novelty",
        "marker": {"size": 9, "symbol": ["circle" if row.trained else "circle-open" for row in grown]},
        "text": [
            f"{row.accepted} of {row.candidates} accepted{'' if row.trained else '; not trained on'}" for row in grown
        ],
        "hovertemplate": "%{y:.1%}<br>%{text}<extra></extra>",
    }
    stop = f"α = {figure(alpha)}: stops below"
    levels = [] if alpha is None else [_level(x, rounded(alpha), stop, {"dash": "dash", "color": _BAD})]
    return Chart(
        label="Novelty by outer epoch, and α; the table of the filters has it",
        data=[own, *levels],
        layout={
            "xaxis": x,
            "yaxis": {**titled("novelty"), "range": [0, 1.05], "tickformat": ".0%"},
            "showlegend": bool(levels),
        },
    )


def _waterfall(row: GrownOuterEpoch) -> Chart:
    taken = {name: number for name, number in row.taken.items() if number}
    steps = [("candidates", row.candidates), *((plain(name, 24), -number) for name, number in taken.items())]
    steps.append(("accepted", row.accepted))

    def text(name: str, size: int) -> str:
        share = f" ({100 * abs(size) / row.candidates:.0f} %)" if row.candidates else ""
        return f"{name}<br>{'−' if size < 0 else ''}{count(abs(size))}{share}"

    own = {
        "type": "waterfall",
        "orientation": "h",
        "y": [*range(len(steps))],  # numbers: names of filters may be alike
        "x": [size for _, size in steps],
        "measure": ["absolute", *("relative" for _ in taken), "absolute"],
        "hoverinfo": "skip",
        "connector": {"line": {"color": _LINE, "width": 1}},
        "decreasing": {"marker": {"color": _BAD}},
        "increasing": {"marker": {"color": ACCENT}},
        "totals": {"marker": {"color": ACCENT}},
    }
    return Chart(
        label=f"Candidates of outer epoch {row.outer_epoch}; the table below has the values",
        data=[own],
        layout={
            "xaxis": {"range": [0, max(row.candidates, 1)], "nticks": 6},
            "yaxis": {**_named([text(*step) for step in steps]), "range": [len(steps) - 0.4, -0.6]},
            "margin": {"l": 20, "r": 24, "t": 10, "b": 20},
        },
        name=str(row.outer_epoch),
        note="" if row.trained else "was not trained on",
        height=50 + 44 * len(steps),
    )


def _judged(rows: Sequence[DiversityRow], name: str) -> str:
    """Say in a word whether the last outer epoch's figure is good or bad, beside the seeds'."""
    seeds, last = rows[0], rows[-1]
    own, given = last.figures.get(name), seeds.figures.get(name)
    if name not in _BETTER or own is None or given is None or seeds.outer_epoch or not last.outer_epoch:
        return ""
    rise = own - given
    if name in _BY_NUMBER and not 0.5 <= last.samples / max(seeds.samples, 1) <= 2:
        return "No verdict: too unlike the seeds in number. "
    bad = rise < -HARDLY * abs(given) if _BETTER[name] else rise > HARDLY
    return "Bad. " if bad else "Good. "


def _diversity(rows: Sequence[DiversityRow], name: str, label: str, meaning: str) -> Chart:
    numbers = [row.outer_epoch for row in rows]
    values = [rounded(row.figures.get(name)) for row in rows]
    x = {**_outer_epochs(numbers, "seeds"), "title": None}
    own = {
        **_points(numbers, values, width=2),
        "marker": {"size": 7, "symbol": ["circle" if number else "diamond-open" for number in numbers]},
        "cliponaxis": False,
        "hovertemplate": f"{label}: %{{y:{'.1%' if name in SHARES else '.4g'}}}<extra></extra>",
    }
    seeds = values[0] if numbers[0] == 0 else None
    level = {**_level(x, seeds, "", {"dash": "dot", "width": 1.25, "color": MUTED}), "hoverinfo": "skip"}
    # a figure that hardly changes shall not look as if it jumped
    known = [value for value in values if value is not None] or [0.0]
    low, high = min(known), max(known)
    room = max(0.2 * (high - low), 0.05 * abs(high), 0.01)
    lowest = low - room if low < 0 else max(low - room, 0)
    return Chart(
        label=f"{label} by outer epoch; the table below has the values",
        data=[own] if seeds is None else [level, own],
        layout={
            "xaxis": x,
            "yaxis": {
                "range": [lowest, high + room],
                "nticks": 5,
                **({"tickformat": ".1~%"} if name in SHARES else {}),
            },
            "margin": {"l": 36, "r": 8, "t": 8, "b": 24},
            "showlegend": False,
        },
        name=label,
        note=f"{_judged(rows, name)}{meaning}",
    )


def _spent(report: Report, measure: str) -> Chart:
    rows = report.spent
    totals: dict[str, float] = {}
    for row in rows:
        totals[row.stage] = totals.get(row.stage, 0) + (rounded(getattr(row, measure)) or 0)
    stages = sorted((stage for stage, total in totals.items() if total > 0), key=lambda stage: totals[stage])
    scale, unit = _unit(measure, max(totals.values()))
    bars = []
    for number in sorted({row.outer_epoch for row in rows}):
        own = [(row.stage, value) for row in rows if row.outer_epoch == number and (value := getattr(row, measure))]
        pattern = {"shape": nth(_PATTERNS, number), "fillmode": "overlay", "solidity": 0.15}
        bars.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": outer_epoch_name(number),
                "x": [rounded(value / scale) for _, value in own],
                "y": [stages.index(stage) for stage, _ in own],
                "hovertemplate": f"%{{x:.4~s}} {unit}",
                "marker": {"color": _colour(number), "pattern": pattern},
            }
        )
    label = _MEASURES[measure]
    return Chart(
        label=f"{label} by stage and outer epoch; the table below has the values",
        data=bars,
        layout={
            "xaxis": titled(unit),
            "yaxis": _named([plain(stage, 28) for stage in stages]),
            "barmode": "stack",
            "showlegend": True,
            "legend": {"y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
            "margin": {"l": 20, "r": 20, "t": 30, "b": 40},
        },
        name=label,
        height=130 + 30 * len(stages),
    )


def _map(samples: Sequence[SampleRow]) -> list[Chart]:
    """Give the map. Plotly gets numbers only; the page shows the texts by an element of its own."""
    groups: dict[int, list[int]] = {}
    for place, sample in enumerate(samples):
        if sample.x is not None:
            groups.setdefault(sample.outer_epoch, []).append(place)
    if not groups:
        return []
    many = sum(map(len, groups.values())) > MOST_SVG_POINTS
    size, opacity = (8, 0.8) if max(map(len, groups.values())) < 1000 else (5, 0.55)
    traces = [
        {
            "type": "scattergl" if many else "scatter",
            "mode": "markers",
            "hoverinfo": "none",
            "name": f"{outer_epoch_name(number) if number else 'seeds'} ({count(len(groups[number]))})",
            "x": [samples[place].x for place in groups[number]],
            "y": [samples[place].y for place in groups[number]],
            "customdata": groups[number],
            "marker": {
                "color": _colour(number) if number else _INK,
                "size": size,
                "opacity": opacity,
                "symbol": nth(SIGNS, number - 1) if number else "x",
            },
        }
        for number in sorted(groups, key=lambda number: (number == 0, number))  # seeds last: they lie on top
    ]
    bare = {"showticklabels": False, "fixedrange": False}
    layout = {
        "xaxis": bare,
        "yaxis": bare,
        "margin": {"l": 12, "r": 12, "t": 34, "b": 12},
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"y": -0.02, "itemsizing": "constant"},
        "uirevision": "kept",
        "dragmode": "pan",
    }
    label = "Map of the pool, coloured by outer epoch; the table of all samples below has the same samples"
    return [Chart(label, traces, layout)]


def _points(x: Sequence[int], y: Sequence[float | None], width: float = 2.5) -> Part:
    line = {"color": ACCENT, "width": width}
    return {"type": "scatter", "mode": "lines+markers", "x": [*x], "y": y, "line": line}


def _level(axis: Part, value: float | None, name: str, line: Part) -> Part:
    """Give a line at a value, all over an axis."""
    shown = {"name": name, "hoverinfo": "name", "hoverlabel": {"namelength": -1}}
    line = {"width": 1.75, **line}
    return {"type": "scatter", "mode": "lines", "x": axis["range"], "y": [value, value], "line": line, **shown}


def _outer_epochs(numbers: Sequence[int], zero: str) -> Part:
    """Give an axis of outer epochs, at most 12 of them by name."""
    known = sorted({*numbers})
    shown = known[:: math.ceil(len(known) / 12)]
    names = [str(number) if number else zero for number in shown]
    ends = [known[0] - 0.4, known[-1] + 0.4]
    return {**titled("outer epoch"), "tickvals": shown, "ticktext": names, "showgrid": False, "range": ends}


def _named(texts: Sequence[str]) -> Part:
    """Give an axis on which texts stand at 0, 1, ..."""
    return {"tickvals": [*range(len(texts))], "ticktext": texts, "showgrid": False, "tickfont": {"color": _INK}}


def titled(text: str) -> Part:
    """Give an axis with a title."""
    return {"title": {"text": text}}


def _unit(measure: str, most: float) -> tuple[int, str]:
    """Give the unit of time that the largest value asks for."""
    if not measure.endswith("seconds"):
        return 1, ""
    return (3600, "hours") if most > 7200 else (60, "minutes") if most > 120 else (1, "seconds")


def _colour(outer_epoch: int) -> str:
    """Give an outer epoch's colour, which is the same in all charts."""
    return nth(COLOURS, outer_epoch - 1) if outer_epoch else MUTED


def nth(kinds: Sequence[str], place: int) -> str:
    """Give the kind of a place; they begin again after the last."""
    return kinds[place % len(kinds)]


def plain(text: str, most: int = 40) -> str:
    """Give a text of a run on one line, short, and without markup."""
    line = " ".join(text.split())
    short = line if len(line) <= most else f"{line[: most - 1]}…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
