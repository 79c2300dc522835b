"""A report on one or more runs: one HTML page that needs no other file, and the same charts as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hfwarmup.measuring.verdict import MEASURED
from hfwarmup.reporting.charts import describe_panel, draw_panel, run_colour
from hfwarmup.reporting.diagnosis import diagnosis_of
from hfwarmup.reporting.overview import draw_overview
from hfwarmup.reporting.panels import Panel, make_panels
from hfwarmup.run_folder.data import RunData
from hfwarmup.run_folder.facts import environment_of, facts_of, results_of, table_of
from hfwarmup.run_folder.files import write_atomically


def write_report(path: Path, runs: Sequence[RunData]) -> Path:
    """Write the page to `path` and the picture beside it, with the suffix .png. Returns the picture's path.

    The page contains Plotly's JavaScript and loads nothing from elsewhere.
    """
    panels = make_panels(runs)
    write_atomically(path, render_page(runs, panels, plotly_js=get_plotlyjs()))
    picture = path.with_suffix(".png")
    draw_overview(picture, runs, panels)
    return picture


def render_page(runs: Sequence[RunData], panels: Sequence[Panel], *, plotly_js: str) -> str:
    """The page as text, which contains `plotly_js`."""
    pages = Environment(
        loader=PackageLoader("hfwarmup.reporting", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("report.html").render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        runs=runs,
        run_colour=run_colour,
        diagnosis_of=diagnosis_of,
        facts_of=facts_of,
        results_of=results_of,
        environment_of=environment_of,
        table=table_of(runs),
        charts=[_describe_chart(panel, runs) for panel in panels],
        num_spikes=sum(len(line.spikes) for panel in panels for line in panel.lines),
        plotly_js=Markup(plotly_js),
    )


def _describe_chart(panel: Panel, runs: Sequence[RunData]) -> dict[str, Any]:
    return {
        "title": panel.title,
        "note": panel.note,
        "small": panel.key.startswith(MEASURED),
        "alt": describe_panel(panel, runs),
        # A browser ends a <script> at the first "</", even inside a string of the data.
        "json": Markup(draw_panel(panel, runs).replace("<", "\\u003c")),
    }
