"""The charts of a report as plain data: `charts.py` draws them for a browser, `overview.py` as a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Literal

from hfwarmup.measuring.spikes import find_spikes
from hfwarmup.measuring.verdict import MEASURED
from hfwarmup.run_folder.data import Points, RunData, planned_rates

MAX_POINTS = 2000
"""A longer series is thinned to about this many points."""

UNITS = {"warmup/angle": "radians", "warmup/noise_scale_samples": "samples"}
"""The units of those measurements that have one."""

Kind = Literal["planned", "applied", "train", "validation", "measured"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series of one run."""

    label: str
    kind: Kind
    run: int
    """index of the run among the compared ones"""
    points: Points
    spikes: Points = field(default_factory=list)
    """the points that are marked"""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart."""

    key: str
    """the log's key that the panel shows, or that its first line shows"""
    title: str
    unit: str
    """unit of the values; empty when the title names it"""
    lines: list[Line]
    log_scale: bool = False

    @property
    def note(self) -> str:
        """Says when only a part of the points is drawn; empty when all are."""
        longest = max((len(line.points) for line in self.lines), default=0)
        if longest <= MAX_POINTS:
            return ""
        return f"{longest:,} points; the chart shows the lowest and the highest of every {_stride(longest)}."


def make_panels(runs: Sequence[RunData]) -> list[Panel]:
    """The charts of one or more runs: learning rate, losses, gradient norm, then everything that was measured."""
    measured = dict.fromkeys(key for run in runs for key in run.logged_keys() if key.startswith(MEASURED))
    candidates = [
        Panel(key="learning_rate", title="Learning rate", unit="learning rate", lines=_lines(runs, _rate_lines)),
        *_loss_panels(runs),
        _series_panel(runs, "grad_norm", "Gradient norm", "norm before clipping", spikes=True),
        *(_series_panel(runs, key, _title_of(key), UNITS.get(key, "")) for key in measured),
    ]
    return [panel for panel in candidates if panel.lines]


def thin(points: Points, limit: int = MAX_POINTS) -> Points:
    """About `limit` of the points at most: the lowest and the highest value of each stretch of equal length.

    >>> thin([(0, 1.0), (1, 5.0), (2, 2.0), (3, 0.0), (4, 3.0), (5, 3.0), (6, 9.0), (7, 4.0)], limit=4)
    [(1, 5.0), (3, 0.0), (4, 3.0), (6, 9.0)]
    """
    if len(points) <= limit:
        return points
    stride, shown = _stride(len(points), limit), []
    for begin in range(0, len(points), stride):
        stretch = [point for point in points[begin : begin + stride] if math.isfinite(point[1])]
        if stretch:
            shown += sorted({min(stretch, key=itemgetter(1)), max(stretch, key=itemgetter(1))})
    return shown


def _stride(length: int, limit: int = MAX_POINTS) -> int:
    return math.ceil(2 * length / limit)


def _lines(runs: Sequence[RunData], of_run: Callable[[int, RunData], Iterable[Line]]) -> list[Line]:
    return [line for index, run in enumerate(runs) for line in of_run(index, run) if line.points]


def _rate_lines(index: int, run: RunData) -> Iterable[Line]:
    applied = [(update, rate) for update, _, rate in run.rates]
    yield Line(label="planned", kind="planned", run=index, points=planned_rates(run))
    yield Line(label="applied", kind="applied", run=index, points=applied)


def _loss_panels(runs: Sequence[RunData]) -> list[Panel]:
    """One chart with both losses for a single run. For several runs, which differ by colour, a chart for each loss."""
    if len(runs) == 1:
        lines = _lines(runs, lambda index, run: [*_train_lines(index, run), *_validation_lines(index, run)])
        return [Panel(key="loss", title="Loss", unit="loss", lines=lines)]
    return [
        Panel(key="loss", title="Training loss", unit="loss", lines=_lines(runs, _train_lines)),
        Panel(key="eval_loss", title="Validation loss", unit="loss", lines=_lines(runs, _validation_lines)),
    ]


def _train_lines(index: int, run: RunData) -> Iterable[Line]:
    yield _series(index, run, "loss", "training", "train", spikes=True)


def _validation_lines(index: int, run: RunData) -> Iterable[Line]:
    """One line for each evaluation set: `eval_loss`, `eval_<set>_loss`."""
    for key in run.logged_keys():
        if key.startswith("eval_") and key.endswith("loss"):
            name = key.removeprefix("eval_").removesuffix("loss").strip("_")
            label = f"validation, {name}" if name else "validation"
            yield _series(index, run, key, label, "validation")


def _series_panel(runs: Sequence[RunData], key: str, title: str, unit: str, *, spikes: bool = False) -> Panel:
    lines = _lines(runs, lambda index, run: [_series(index, run, key, title.lower(), "measured", spikes=spikes)])
    values = [value for line in lines for _, value in line.points if math.isfinite(value)]
    wide = bool(values) and min(values) > 0 and max(values) > 50 * min(values)
    return Panel(key=key, title=title, unit=unit, lines=lines, log_scale=wide)


def _series(index: int, run: RunData, key: str, label: str, kind: Kind, *, spikes: bool = False) -> Line:
    """One key of a run's log."""
    points = run.series(key)
    marked = [points[place] for place in find_spikes([value for _, value in points])] if spikes else []
    return Line(label=label, kind=kind, run=index, points=points, spikes=marked)


def _title_of(key: str) -> str:
    """`warmup/effective_rank` is shown as "Effective rank"."""
    return key.removeprefix(MEASURED).replace("_", " ").replace("/", ": ").capitalize()
