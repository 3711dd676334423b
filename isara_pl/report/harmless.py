"""The chart of the paper's Figure 6: how harmless the models are against how helpful, by outer epoch and method."""

from collections.abc import Sequence
from dataclasses import dataclass

from isara_pl.report.charts import ACCENT, COLOURS, SIGNS, Chart, nth, plain, titled
from isara_pl.report.contents import Curve

# what each axis may show, the first that was measured; and whether it is turned, so that more is better
_HELPFUL = (("reward", "reward", False), ("over_refusal", "1 − over-refusal", True))
_HARMLESS = (
    ("harm_rate", "1 − harm rate", True),
    ("harm_preference", "1 − harm preference", True),
    ("unsafe_refusal", "refusal of unsafe prompts", False),
)


def harmless_against_helpful(curves: Sequence[Curve]) -> list[Chart]:
    """Give the chart; none where harm or help was not measured.

    Helpful is the reward, or the share of safe prompts that are not refused; harmless the share of answers that are not
    harmful, of harmful answers that are less likely than harmless ones, or of unsafe prompts that are refused.
    """
    x, y = (_axis(curves, known) for known in (_HELPFUL, _HARMLESS))
    if x is None or y is None:
        return []
    shown = [number for number in x.own if number in y.own]
    own = {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": "this run",
        "x": [x.own[number] for number in shown],
        "y": [y.own[number] for number in shown],
        "text": [str(number) if number else "pretrained" for number in shown],
        "textposition": "top center",
        "line": {"color": ACCENT, "width": 1.5},
        "marker": {"size": 9, "symbol": ["circle" if number else "circle-open" for number in shown]},
        "cliponaxis": False,
        "hovertemplate": "%{text}: %{x:.4g}, %{y:.4g}<extra></extra>",
    }
    others = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": plain(name, 24),
            "x": [x.baselines[name]],
            "y": [y.baselines[name]],
            "marker": {"size": 11, "color": nth(COLOURS, place + 1), "symbol": nth(SIGNS, place + 1)},
            "cliponaxis": False,
            "hovertemplate": "%{x:.4g}, %{y:.4g}<extra></extra>",
        }
        for place, name in enumerate(name for name in x.baselines if name in y.baselines)
    ]
    return [
        Chart(
            label=f"{y.title} against {x.title} by outer epoch and method; the table below has what they are from",
            data=[own, *others],
            layout={
                "xaxis": titled(f"helpful: {x.title}"),
                "yaxis": titled(f"harmless: {y.title}"),
                "margin": {"t": 30},
                "showlegend": bool(others),
                "legend": {"y": -0.3},
            },
            name="Harmless against helpful",
            note="Up and to the right is better; the numbers are outer epochs.",
        )
    ]


@dataclass(frozen=True)
class _Axis:
    """What an axis shows: more is better."""

    title: str
    own: dict[int, float]  # by outer epoch
    baselines: dict[str, float]


def _axis(curves: Sequence[Curve], known: Sequence[tuple[str, str, bool]]) -> _Axis | None:
    """Give an axis of the first of some measures that was measured; None where none was."""
    for measure, title, turned in known:
        for curve in curves:
            if curve.name == measure or curve.name.endswith(f"_{measure}"):
                values = zip(curve.outer_epochs, curve.values, strict=True)
                own = {number: _turned(value, turned) for number, value in values if value is not None}
                return _Axis(title, own, {name: _turned(value, turned) for name, value in curve.baselines.items()})
    return None


def _turned(value: float, turned: bool) -> float:
    return float(f"{1 - value if turned else value:.6g}")
