"""The pictures that a recipe leaves in its run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from hfwarmup.reporting.curves import plot_learning_rates, plot_losses
from hfwarmup.training.callbacks import LearningRateRecorder, read_learning_rates
from hfwarmup.training.scheduler import WarmupScheduler


def draw_run(folder: Path, scheduler: LRScheduler, log_history: Sequence[Mapping[str, Any]]) -> None:
    """Write `schedule.png` (learning rate planned and applied) and `loss.png` into a run's folder.

    The rates are those of the folder's `learning_rates.csv`, beyond its end those that a WarmupScheduler goes on with;
    `log_history` is the Trainer's. The first parameter group is shown.
    """
    rows = read_learning_rates(folder / LearningRateRecorder.FILE)
    planned, warmup_steps, name = [row[1] for row in rows], 0, type(scheduler).__name__
    if isinstance(scheduler, WarmupScheduler):
        spec = scheduler.spec
        planned += [spec.learning_rates(step)[0] for step in range(len(rows), spec.total_steps or 0)]
        warmup_steps, name = spec.num_warmup_steps, spec.name
    plot_learning_rates(
        folder / "schedule.png",
        planned=planned,
        applied=[(update, applied) for update, _, applied in rows],
        warmup_steps=warmup_steps,
        title=f"{name}: peak {max(planned):g}, warmup {warmup_steps} of {len(planned)} updates",
    )
    plot_losses(folder / "loss.png", log_history=log_history, warmup_steps=warmup_steps)
