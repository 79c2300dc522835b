"""Whether the warmup of a recorded run was long enough."""

from __future__ import annotations

from hfwarmup.measuring.verdict import Diagnosis, diagnose
from hfwarmup.run_folder.data import RunData


def diagnosis_of(run: RunData) -> Diagnosis | None:
    """Judge a run's warmup by its log; None when its length, warmup or peak is not recorded."""
    if not {"max_steps", "warmup_steps", "peak_lr"} <= run.manifest.keys():
        return None
    return diagnose(
        run.log,
        total_steps=run.manifest["max_steps"],
        warmup_steps=run.manifest["warmup_steps"],
        peak_lr=run.manifest["peak_lr"],
    )
