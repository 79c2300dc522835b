"""Draw docs/schedules.png: every named schedule at its defaults, 1000 updates, 200 of them warmup.

python docs/gallery.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from hfwarmup.reporting.curves import PLANNED
from hfwarmup.schedules.curve import Schedule
from hfwarmup.schedules.named import SCHEDULES, get_schedule, takes_length_from_beta2

PEAK_LR, TOTAL_STEPS, WARMUP_STEPS = 1e-3, 1000, 200
BETA2 = 0.99  # 2 / (1 - 0.99) is 200 too


def main() -> None:
    panels = {}
    for name in SCHEDULES:
        if name == "hfwarmup":  # any warmup, any decay
            continue
        from_beta2 = takes_length_from_beta2(name, {})
        lengths = {"num_warmup_steps": 0 if from_beta2 else WARMUP_STEPS, "num_training_steps": TOTAL_STEPS}
        schedule = get_schedule(name, peak_lr=PEAK_LR, **lengths, **({"beta2": BETA2} if from_beta2 else {}))
        panels[name] = (schedule, WARMUP_STEPS)
    plot_schedules(Path(__file__).with_name("schedules.png"), panels, total_steps=TOTAL_STEPS)


def plot_schedules(path: Path, schedules: Mapping[str, tuple[Schedule, int]], *, total_steps: int) -> None:
    """Draw one small panel for each schedule: name -> (schedule, warmup_steps), over `total_steps` updates."""
    columns = 4
    rows = -(-len(schedules) // columns)
    figure = Figure(figsize=(11, 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel in panels.flat[len(schedules) :]:
        panel.set_visible(False)
    for panel, (name, (schedule, warmup_steps)) in zip(panels.flat, schedules.items(), strict=False):
        panel.axvspan(0, warmup_steps, color=PLANNED, alpha=0.12, linewidth=0)
        panel.plot(range(total_steps), [schedule(step) for step in range(total_steps)], color=PLANNED, linewidth=1.8)
        panel.set_title(name, fontsize=10)
        panel.set_xticks([0, total_steps])
        panel.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("update (warmup shaded)", fontsize=10)
    figure.supylabel("learning rate", fontsize=10)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
