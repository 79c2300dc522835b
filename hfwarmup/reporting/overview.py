"""The panels of a report in one picture, for places without a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hfwarmup.reporting.curves import APPLIED, PLANNED, TRAIN, VALIDATION
from hfwarmup.reporting.panels import Line, Panel, thin
from hfwarmup.run_folder.data import RunData

MEASURED_COLOUR, SPIKE = "#0f7a5f", "#c0143c"
RUN_COLOURS = ("#1f5fbf", "#c2470a", "#0f7a5f", "#8a3fa0", "#b01e45", "#756000", "#0a7488", "#565d6b")
STYLES: dict[str, dict[str, Any]] = {
    "planned": {"color": PLANNED, "linewidth": 4, "alpha": 0.5},
    "applied": {"color": APPLIED, "linewidth": 1.5},
    "train": {"color": TRAIN, "linewidth": 1.5},
    "validation": {"color": VALIDATION, "linewidth": 1.8, "marker": "o", "markersize": 4},
    "measured": {"color": MEASURED_COLOUR, "linewidth": 1.5},
}
"""The look of each kind of line in the picture of a single run."""


def draw_overview(path: Path, runs: Sequence[RunData], panels: Sequence[Panel]) -> None:
    """Draw all panels, two in a row, with the warmup shaded. Each of several runs has its own colour."""
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(11, 0.4 + 2.9 * max(rows, 1)), layout="constrained")
    figure.suptitle(", ".join(run.name for run in runs), x=0.01, ha="left", fontsize=13, fontweight="bold")
    axes = figure.subplots(max(rows, 1), 2, squeeze=False).flatten()
    for empty in axes[len(panels) :]:
        empty.set_visible(False)
    for panel, axis in zip(panels, axes, strict=False):
        _draw_panel(axis, panel, runs)
    figure.savefig(path, dpi=130)


def _draw_panel(axes: Axes, panel: Panel, runs: Sequence[RunData]) -> None:
    for line in panel.lines:
        _draw_line(axes, line, runs)
    for index in sorted({line.run for line in panel.lines if runs[line.run].warmup_steps}):
        if len(runs) == 1:
            axes.axvspan(0, runs[0].warmup_steps, color="#e9a028", alpha=0.15, linewidth=0)
        else:
            axes.axvline(runs[index].warmup_steps, color=_colour(index), linewidth=1, linestyle="--")
    axes.set_title(panel.title, loc="left", fontsize=11)
    axes.set_xlabel("update")
    axes.set_xlim(0, 1.01 * max(run.total_steps for run in runs))
    axes.set_ylabel(panel.unit)
    axes.set_yscale("log" if panel.log_scale else "linear")
    if panel.key == "learning_rate":
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    if len(panel.lines) > 1 or panel.key == "loss":
        axes.legend(frameon=False, fontsize=9)


def _draw_line(axes: Axes, line: Line, runs: Sequence[RunData]) -> None:
    style, label = dict(STYLES[line.kind]), line.label
    if len(runs) > 1:
        style["color"], label = _colour(line.run), runs[line.run].name
        if line.kind == "planned":
            style, label = {"color": _colour(line.run), "linewidth": 1, "linestyle": ":"}, "_planned"
    axes.plot(*zip(*thin(line.points), strict=True), label=label, **style)
    if line.spikes:
        colour, label = (SPIKE, "spike") if len(runs) == 1 else (_colour(line.run), "_spike")
        axes.plot(*zip(*line.spikes, strict=True), "x", color=colour, markersize=7, markeredgewidth=2, label=label)


def _colour(index: int) -> str:
    return RUN_COLOURS[index % len(RUN_COLOURS)]
