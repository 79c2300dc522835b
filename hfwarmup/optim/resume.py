"""What a resumed run does when its schedule is not the checkpoint's."""

from __future__ import annotations

import logging

from hfwarmup.errors import UserError
from hfwarmup.schedules.spec import OnScheduleChange, ScheduleSpec

logger = logging.getLogger(__name__)


def settle(saved: ScheduleSpec, configured: ScheduleSpec, policy: OnScheduleChange, *, step: int) -> ScheduleSpec:
    """The schedule to follow from update `step` on, under the resume policy.

    Raises ValueError under `error` when the two differ: every changed name with both values, and what to pass.
    """
    differences = saved.differences(configured)
    if not differences:
        return configured
    listed = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in differences.items())
    if policy == "error":
        raise UserError(
            f"schedule changed since the checkpoint at update {step}: {listed}; {_remedy(set(differences))}"
        )
    old_lr, new_lr = max(saved.learning_rates(step)), max(configured.learning_rates(step))
    if policy == "checkpoint":
        logger.warning("on_schedule_change=checkpoint: the checkpoint's schedule stays, without %s", listed)
        return saved
    jump = f"; update {step} runs at {new_lr:g}, not {old_lr:g}" if new_lr != old_lr else ""
    logger.warning("on_schedule_change=config: %s%s", listed, jump)
    return configured


def measured_start(critical_lr: float | None, policy: OnScheduleChange, *, step: int) -> float:
    """The critical learning rate that a run with `initial_lr: auto` began at, from its checkpoint at update `step`.

    0, which starts the ramp where it starts without, under `checkpoint` when there is none; else that is a ValueError.
    """
    if critical_lr is None and policy != "checkpoint":
        raise UserError(
            f"initial_lr='auto' is measured when a run begins, and the checkpoint at update {step} did not; give "
            "initial_lr a number, or pass on_schedule_change=checkpoint to keep the old schedule."
        )
    return critical_lr or 0.0


def _remedy(changed: set[str]) -> str:
    if changed == {"max_steps"}:
        return (
            "to train longer pass on_schedule_change=config (the decay is laid over the new length, the learning rate "
            "jumps) or checkpoint (the old decay ends where it would have, and its last learning rate stays)."
        )
    return "pass on_schedule_change=config to follow the new schedule from here on, or checkpoint to keep the old one."
