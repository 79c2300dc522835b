"""The panels of a report as Plotly figures. Their colours are CSS variables, so that they follow the page's theme."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from plotly import graph_objects as go

from hfwarmup.measuring.verdict import MEASURED
from hfwarmup.reporting.panels import Line, Panel, thin
from hfwarmup.run_folder.data import Points, RunData

NUM_RUN_COLOURS = 8
DIGITS = 6
"""Significant digits of each drawn value."""

STYLES: dict[str, dict[str, Any]] = {
    "planned": {"mode": "lines", "line": {"color": "var(--planned)", "width": 5}, "opacity": 0.55},
    "applied": {"mode": "lines", "line": {"color": "var(--applied)", "width": 2}},
    "train": {"mode": "lines", "line": {"color": "var(--train)", "width": 1.8}},
    "validation": {
        "mode": "lines+markers",
        "line": {"color": "var(--validation)", "width": 2.2},
        "marker": {"size": 8, "color": "var(--validation)"},
    },
    "measured": {"mode": "lines", "line": {"color": "var(--measured)", "width": 1.8}},
}
"""The look of each kind of line in the report of a single run."""


def draw_panel(panel: Panel, runs: Sequence[RunData]) -> str:
    """A panel as the JSON of a Plotly figure: data and layout."""
    figure = go.Figure(layout=_layout(panel, total_steps=max(run.total_steps for run in runs)))
    for line in panel.lines:
        figure.add_trace(_trace(line, runs))
    for line in panel.lines:
        if line.spikes:
            figure.add_trace(_spike_marks(line, several=len(runs) > 1))
    _mark_warmups(figure, panel, runs)
    whole = json.loads(figure.to_json())
    return json.dumps({"data": whole["data"], "layout": whole["layout"]}, separators=(",", ":"))


def describe_panel(panel: Panel, runs: Sequence[RunData]) -> str:
    """What a chart shows, in words, for readers who cannot see it."""
    parts = []
    for line in panel.lines:
        (first, first_value), (last, last_value) = line.points[0], line.points[-1]
        name = f"{runs[line.run].name}, {line.label}" if len(runs) > 1 else line.label
        spikes = f", {len(line.spikes)} spikes" if line.spikes else ""
        parts.append(f"{name}: {first_value:.4g} at update {first}, {last_value:.4g} at update {last}{spikes}")
    return f"{panel.title}. {'; '.join(parts)}."


def run_colour(index: int) -> str:
    """The CSS variable of a run's colour; after eight runs the colours repeat."""
    return f"var(--run-{index % NUM_RUN_COLOURS})"


def _layout(panel: Panel, *, total_steps: int) -> dict[str, Any]:
    axis = {"gridcolor": "var(--grid)", "linecolor": "var(--line)", "zeroline": False, "automargin": True}
    return {
        "template": "none",
        "autosize": True,
        "height": 210 if panel.key.startswith(MEASURED) else 320,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--muted)", "size": 12},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "var(--card)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"color": "var(--ink)"}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
        "showlegend": len(panel.lines) > 1 or panel.key == "loss",
        "xaxis": {
            **axis,
            "title": {"text": "update"},
            "range": [0, 1.01 * total_steps],
            "hoverformat": ",d",
            "unifiedhovertitle": {"text": "update %{x}"},
            "showgrid": False,
            "ticks": "outside",
        },
        "yaxis": {
            **axis,
            "title": {"text": panel.unit},
            "type": "log" if panel.log_scale else "linear",
            "rangemode": "tozero" if panel.key == "learning_rate" else "normal",
            "exponentformat": "e",
        },
    }


def _trace(line: Line, runs: Sequence[RunData]) -> go.Scatter:
    style, name = STYLES[line.kind], line.label
    if len(runs) > 1:
        name, style = runs[line.run].name, _style_of_run(line)
    x, y = _columns(thin(line.points))
    return go.Scatter(
        x=x,
        y=y,
        name=name,
        legendgroup=str(line.run) if len(runs) > 1 else None,
        showlegend=len(runs) == 1 or line.kind != "planned",
        **{"hovertemplate": "%{y:.6~g}", **style},
    )


def _style_of_run(line: Line) -> dict[str, Any]:
    colour = run_colour(line.run)
    if line.kind == "planned":
        return {
            "mode": "lines",
            "line": {"color": colour, "width": 1.2, "dash": "dot"},
            "hovertemplate": "%{y:.6~g} planned",
        }
    style = {"mode": "lines", "line": {"color": colour, "width": 2}}
    if line.kind == "validation":
        style |= {"mode": "lines+markers", "marker": {"size": 7, "color": colour}}
    return style


def _spike_marks(line: Line, *, several: bool) -> go.Scatter:
    x, y = _columns(line.spikes)
    colour = run_colour(line.run) if several else "var(--spike)"
    marker = {"symbol": "x-thin", "size": 11, "line": {"width": 2.5, "color": colour}}
    return go.Scatter(x=x, y=y, name="spike", mode="markers", marker=marker, showlegend=not several, hoverinfo="skip")


def _mark_warmups(figure: go.Figure, panel: Panel, runs: Sequence[RunData]) -> None:
    """Shade the warmup of a single run; for several runs, mark where each warmup ends in the run's colour."""
    drawn = sorted({line.run for line in panel.lines if runs[line.run].warmup_steps})
    if len(runs) == 1 and drawn:
        warmup_steps = runs[0].warmup_steps
        figure.add_vrect(x0=0, x1=warmup_steps, fillcolor="var(--warmup)", line_width=0, layer="below")
        figure.add_vline(x=warmup_steps, line={"color": "var(--warmup-edge)", "width": 1, "dash": "dash"})
        return
    for index in drawn:
        line = {"color": run_colour(index), "width": 1.2, "dash": "dash"}
        figure.add_vline(x=runs[index].warmup_steps, line=line, opacity=0.8)


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [float(f"{y:.{DIGITS}g}") for _, y in points]
