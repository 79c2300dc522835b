"""Draw docs/schedules.png: every named schedule at its defaults, 1000 updates, 200 of them warmup.

python docs/gallery.py
"""

from __future__ import annotations

from pathlib import Path

from hfwarmup.reporting.curves import plot_schedules
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


if __name__ == "__main__":
    main()
