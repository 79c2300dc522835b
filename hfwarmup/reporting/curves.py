"""Pictures of a run, by matplotlib without a display: learning rate planned and applied, losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hfwarmup.schedules.spec import ScheduleSpec

PLANNED, APPLIED, TRAIN, VALIDATION = "#4269d0", "#ff725c", "#9498a0", "#4269d0"
MAX_POINTS = 2000


def plot_learning_rates(
    path: Path, *, planned: Sequence[float], applied: Sequence[tuple[int, float]], warmup_steps: int, title: str
) -> None:
    """Draw the planned learning rate as a line and the applied one as dots, with the warmup shaded.

    Args:
        path: the picture to write; its suffix decides between PNG and SVG.
        planned: the learning rate of each update of the run.
        applied: (0-based update, learning rate) of each update that was made.
        warmup_steps: updates up to the peak.
        title: the line above the picture.
    """
    figure, axes = _figure(title, "learning rate")
    _shade_warmup(axes, warmup_steps)
    steps = range(0, len(planned), max(1, len(planned) // MAX_POINTS))
    axes.plot(steps, [planned[step] for step in steps], color=PLANNED, linewidth=2, label="planned")
    dots = applied[:: max(1, len(applied) // 50)]
    if dots:
        axes.plot(*zip(*dots, strict=True), "o", color=APPLIED, markersize=4, label="applied")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_ylim(bottom=0)
    _save(figure, axes, path)


def plot_curves(path: Path, curves: Mapping[str, ScheduleSpec]) -> None:
    """Draw several learning rates in one picture: name -> schedule, of which the first parameter group is shown."""
    figure, axes = _figure("learning rate of each update", "learning rate")
    for name, spec in curves.items():
        total_steps = spec.total_steps or 1
        steps = range(0, total_steps, max(1, total_steps // MAX_POINTS))
        label = f"{name}: {spec.name}, warmup {spec.warmup_steps}"
        axes.plot(steps, [spec.learning_rates(step)[0] for step in steps], linewidth=2, label=label)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_ylim(bottom=0)
    _save(figure, axes, path)


def plot_losses(path: Path, *, log_history: Sequence[Mapping[str, Any]], warmup_steps: int) -> None:
    """Draw the training and validation loss of a Trainer's `state.log_history`, with the warmup shaded.

    Losses are in nats; for language models in nats per token.
    """
    losses = [entry["eval_loss"] for entry in log_history if "eval_loss" in entry]
    figure, axes = _figure(f"validation loss {losses[-1]:.3f}" if losses else "training loss", "loss (nats)")
    _shade_warmup(axes, warmup_steps)
    for key, label, style, color in (("loss", "train", "-", TRAIN), ("eval_loss", "validation", "o-", VALIDATION)):
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=5, linewidth=2)
    _save(figure, axes, path)


def plot_step_sizes(
    path: Path, *, start_loss: float, series: Mapping[str, Sequence[tuple[float, float]]], marks: Mapping[str, float]
) -> None:
    """Draw losses over learning rates on a logarithmic axis: name -> (learning rate, loss); `marks` are vertical lines.

    `start_loss` is the loss before the step. The picture ends as far above it as the lowest loss lies below it. A loss
    above that end, or not finite, is drawn there as a triangle.
    """
    figure, axes = _figure("loss against step size, before the first update", "loss (nats)")
    lowest = min([start_loss, *(loss for points in series.values() for _, loss in points if math.isfinite(loss))])
    limit = start_loss + (start_loss - lowest or abs(start_loss))
    for name, points in series.items():
        (line,) = axes.plot(*zip(*sorted(points), strict=True), "o-", markersize=4, label=name)
        above = [lr for lr, loss in points if not loss <= limit]
        axes.plot(above, [limit] * len(above), "^", color=line.get_color(), clip_on=False, label="_above")
    axes.axhline(start_loss, color=TRAIN, linewidth=1, label=f"before the step {start_loss:.4g}")
    for (name, lr), style in zip(marks.items(), ("--", ":"), strict=False):
        axes.axvline(lr, color="black", linestyle=style, linewidth=1, label=f"{name} {lr:.3g}")
    axes.set_ylim(lowest - 0.05 * (limit - lowest), limit)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    _save(figure, axes, path)


def _figure(title: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("update")
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def _shade_warmup(axes: Axes, warmup_steps: int) -> None:
    if warmup_steps:
        axes.axvspan(0, warmup_steps, color=PLANNED, alpha=0.1, linewidth=0, label=f"warmup, {warmup_steps} updates")


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
