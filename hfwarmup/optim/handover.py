"""The torch scheduler that takes over at the peak: how `warmup_plateau` makes its own, and how any of them resumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from hfwarmup.errors import UserError
from hfwarmup.schedules.decay_shapes import DECAY_SHAPES
from hfwarmup.schedules.spec import OnScheduleChange, ScheduleSpec

_PLATEAU_COUNTERS = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def make_plateau(optimizer: Optimizer, spec: ScheduleSpec) -> ReduceLROnPlateau | None:
    """The ReduceLROnPlateau that the schedule asks for; None when its decay is not plateau."""
    options = spec.resolved
    if options.decay != "plateau":
        return None
    lowest_peak = min((peak for peak in spec.peak_lrs if peak > 0.0), default=0.0)
    if options.min_lr > lowest_peak:
        raise UserError(f"min_lr={options.min_lr} is above the peak learning rate {lowest_peak}; lower it.")
    settings = DECAY_SHAPES["plateau"].options - {"metric"}
    return ReduceLROnPlateau(optimizer, **{name: getattr(options, name) for name in settings})


def load_after(after: LRScheduler, state: dict[str, Any], saved: ScheduleSpec, now: ScheduleSpec) -> None:
    """Load the state of `after`, which ran under the schedule `saved` and goes on under `now`.

    The settings of a plateau and the peaks are those of `now`.
    """
    is_plateau = now.resolved.decay == "plateau"
    if is_plateau and saved.resolved.used() != now.resolved.used():
        keep_best = saved.resolved.mode == now.resolved.mode and saved.resolved.metric == now.resolved.metric
        state = {name: state[name] for name in _PLATEAU_COUNTERS if name != "best" or keep_best}
    after.load_state_dict(state)
    _rescale_peaks(after, saved, now)


def _rescale_peaks(after: LRScheduler, saved: ScheduleSpec, now: ScheduleSpec) -> None:
    """Scale the peaks that a torch scheduler keeps; in a scheduler of schedulers each part keeps its own."""
    for part in getattr(after, "_schedulers", ()):
        _rescale_peaks(part, saved, now)
    if "base_lrs" in vars(after):
        after.base_lrs = list(rescale([float(lr) for lr in after.base_lrs], saved, now))


def steps_made(after: LRScheduler) -> int:
    """How many steps a torch scheduler has made. ChainedScheduler does not count them; its parts do."""
    parts = [steps_made(part) for part in getattr(after, "_schedulers", ())]
    return max(int(vars(after).get("last_epoch", 0)), *parts, 0)


def check_same_handover(after: LRScheduler | None, state: dict[str, Any] | None, policy: OnScheduleChange) -> None:
    """Raise UserError if only one of the two schedules (this one, the checkpoint's) has a scheduler after its warmup.

    Under `config` that is allowed.
    """
    if policy != "config" and (after is None) != (state is None):
        which = "the checkpoint's schedule" if after is None else "this schedule"
        raise UserError(
            f"only {which} has a scheduler after its warmup; build the checkpoint's one again, "
            "or pass on_schedule_change=config to follow this schedule from here on."
        )


def rescale(learning_rates: Sequence[float], saved: ScheduleSpec, now: ScheduleSpec) -> list[float]:
    """The groups' learning rates under the peaks of `saved`, scaled to those of `now`; exact where the peak stays."""
    rows = zip(learning_rates, saved.peak_lrs, now.peak_lrs, strict=True)
    return [lr if old == new else lr * new / old if old else new for lr, old, new in rows]
