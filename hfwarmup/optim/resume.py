"""What a resumed run does when its schedule differs from the checkpoint's."""

from __future__ import annotations

import logging

from hfwarmup.errors import UserError
from hfwarmup.schedules.spec import OnScheduleChange, ScheduleSpec

logger = logging.getLogger(__name__)


def resolve_spec(saved: ScheduleSpec, configured: ScheduleSpec, policy: OnScheduleChange, *, step: int) -> ScheduleSpec:
    """The schedule to follow from update `step` on, under the resume policy.

    Raises UserError when the two differ under `error`: every changed name with both values, and what to pass.
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
        logger.warning(
            "on_schedule_change=checkpoint: keeping the checkpoint's schedule, without the change %s", listed
        )
        return saved
    jump = f"; update {step} runs at {new_lr:g} instead of {old_lr:g}" if new_lr != old_lr else ""
    logger.warning("on_schedule_change=config: %s%s", listed, jump)
    return configured


def resolve_critical_lr(critical_lr: float | None, policy: OnScheduleChange, *, step: int) -> float:
    """The critical learning rate at which a run with `initial_lr: auto` began, from its checkpoint at update `step`.

    Without one it is 0 under `checkpoint`, which leaves the ramp as it is, and a UserError under the other policies.
    """
    if critical_lr is None and policy != "checkpoint":
        raise UserError(
            f"initial_lr='auto' is measured when a run begins, but the run of the checkpoint at update {step} did not "
            "use it; give initial_lr a number, or pass on_schedule_change=checkpoint to keep the old schedule."
        )
    return critical_lr or 0.0


def _remedy(changed: set[str]) -> str:
    if changed == {"max_steps"}:
        return (
            "to train longer pass on_schedule_change=config (the decay takes the new length, so the learning rate "
            "jumps) or checkpoint (the old decay ends where it would have, and its last learning rate stays)."
        )
    return "pass on_schedule_change=config to follow the new schedule from here on, or checkpoint to keep the old one."
