"""Curves without pictures: as text for a terminal, and as CSV. Standard library only."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from hfwarmup.schedules.spec import ScheduleSpec

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_EIGHTHS_WIDE = " ▏▎▍▌▋▊▉█"


def draw_text(name: str, spec: ScheduleSpec, *, columns: int = 72, rows: int = 10) -> str:
    """The learning rate over the run, drawn with block characters; the scale and the end of the warmup are marked.

    >>> spec = ScheduleSpec(name="gradual_warmup", given_warmup_steps=4, total_steps=8, peak_lrs=[1.0])
    >>> print(draw_text("run", spec, columns=8, rows=2))
    run: gradual_warmup
          1 ┤   ▄████
            │ ▄██████
          0 └────┬───
             0   4  8  updates, ┬ the end of the warmup
    """
    total_steps = spec.total_steps or 1
    top = max(spec.peak_lrs)
    updates = [column * total_steps // columns for column in range(columns)]
    heights = [round(spec.learning_rates(update)[0] / top * rows * 8) if top else 0 for update in updates]
    lines = []
    for row in reversed(range(rows)):
        blocks = "".join(_EIGHTHS[min(8, max(0, height - 8 * row))] for height in heights)
        label = f"{top:>7.3g} ┤" if row == rows - 1 else f"{'':>7} │"
        lines.append(label + blocks)
    mark = min(columns - 1, spec.warmup_steps * columns // total_steps)
    axis = "".join("┬" if column == mark else "─" for column in range(columns))
    ticks = f"0{spec.warmup_steps:>{max(1, mark)}}" if mark else "0"
    ticks += f"{total_steps:>{max(1, columns - len(ticks))}}"
    title = f"{name}: {spec.name}"
    return "\n".join([title, *lines, f"{0:>7} └{axis}", f"{'':>8} {ticks}  updates, ┬ the end of the warmup"])


def write_csv(path: Path, curves: Mapping[str, ScheduleSpec]) -> None:
    """Write one row for each update: its index and each curve's learning rate, empty after the curve's end."""
    lengths = {name: spec.total_steps or 0 for name, spec in curves.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["update", *curves])
        for update in range(max(lengths.values())):
            rates = [spec.learning_rates(update)[0] if update < lengths[name] else "" for name, spec in curves.items()]
            writer.writerow([update, *rates])


def draw_losses(points: Sequence[tuple[float, float]], *, columns: int = 40) -> str:
    """One row for each learning rate: the rate, the loss and a bar. Bars are cut at twice the first loss.

    >>> print(draw_losses([(0.0, 3.0), (0.2, 4.0), (0.1, 2.0)], columns=4))
          0        3  ██
        0.1        2
        0.2        4  ████
    """
    limit = 2 * points[0][1]
    heights = [min(loss, limit) if math.isfinite(loss) else limit for _, loss in points]
    low, high = min(heights), max(heights)
    lines = []
    for (lr, loss), height in sorted(zip(points, heights, strict=True)):
        eighths = round((height - low) / (high - low) * columns * 8) if high > low else 0
        bar = _EIGHTHS_WIDE[8] * (eighths // 8) + _EIGHTHS_WIDE[eighths % 8].strip()
        lines.append(f"{lr:>7.3g} {loss:>8.4g}  {bar}".rstrip())
    return "\n".join(lines)
