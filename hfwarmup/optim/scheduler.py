"""The torch scheduler: a schedule at work on an optimizer, and the hand-over to another scheduler at the peak."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import replace
from typing import Any, get_args

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from hfwarmup.errors import UserError, check_choice
from hfwarmup.optim.groups import warmup_stretches, with_beta2
from hfwarmup.optim.handover import check_same_handover, load_after, make_plateau, rescale
from hfwarmup.optim.resume import resolve_critical_lr, resolve_spec
from hfwarmup.optim.weight_decay import ScaledWeightDecay, check_weight_decay
from hfwarmup.schedules.spec import OnLrMismatch, OnScheduleChange, ScheduleSpec, without_auto

logger = logging.getLogger(__name__)


class UpdateCounter:
    """Counts an optimizer's updates: an object of its own, since the optimizer's hook keeps it alive."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        """Count one update, as a hook of `optimizer.step()`."""
        self.count += 1


class WarmupScheduler(LRScheduler):
    """A schedule by name on a torch optimizer; step it once after every `optimizer.step()`.

    Update t of a parameter group runs at schedule(t), with the group's own peak (its `lr`), start and floor, and with
    its own length of warmup where it has a `warmup_stretch` (see `hfwarmup.optim.groups.stretch_warmup`).

    The index t follows the optimizer's updates: more than one call of `step()` between two updates changes nothing. So
    it is right under accelerate, which calls a prepared scheduler once per process. While the optimizer has never
    stepped (a walk along the curve), every call counts; a warning is logged if updates follow.

    Args:
        optimizer: its groups' learning rates are the peaks.
        name: a schedule, see `hfwarmup.schedules.named.SCHEDULES`.
        num_warmup_steps: updates to the peak; None or 0 for the names that take it from the optimizer's beta2.
        num_training_steps: updates of the run; not needed for decays that have no end.
        after: a torch scheduler that takes over at the peak; see `warmup`.
        on_schedule_change: what `load_state_dict` does when the checkpoint's schedule differs: `error` stops, `config`
            follows this schedule from the checkpoint's update on, `checkpoint` keeps the old one.
        on_lr_mismatch: what the Trainer callback does when something else changed the learning rate: warn or error.
        **options: fields of `ScheduleOptions`; `initial_lr="auto"` waits for `start_at_critical_lr`, which a Trainer's
            callback calls when the run begins.

    Raises:
        UserError: one line with what is wrong, its value and the remedy.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> scheduler = WarmupScheduler(optimizer, "warmup_linear", num_warmup_steps=2, num_training_steps=4)
    >>> for update in range(3):
    ...     print(update, scheduler.get_last_lr())
    ...     optimizer.step()
    ...     scheduler.step()
    0 [1e-07]
    1 [0.50000005]
    2 [1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        name: str = "hfwarmup",
        *,
        num_warmup_steps: int | None = None,
        num_training_steps: int | None = None,
        after: LRScheduler | None = None,
        on_schedule_change: OnScheduleChange = "error",
        on_lr_mismatch: OnLrMismatch = "warn",
        **options: Any,
    ) -> None:
        check_choice("on_schedule_change", on_schedule_change, get_args(OnScheduleChange))
        check_choice("on_lr_mismatch", on_lr_mismatch, get_args(OnLrMismatch))
        # accelerate's wrapper has no step hooks; the optimizer that it wraps has.
        optimizer = getattr(optimizer, "optimizer", optimizer)
        groups = optimizer.param_groups
        self.on_schedule_change, self.on_lr_mismatch = on_schedule_change, on_lr_mismatch
        options, self.awaits_critical_lr = without_auto(name, options)
        self.critical_lr: float | None = None
        spec = ScheduleSpec(
            name=name,
            options=with_beta2(optimizer, name, options),
            given_warmup_steps=num_warmup_steps,
            total_steps=num_training_steps,
            # initial_lr is torch's convention for a peak that an earlier scheduler has moved away from.
            peak_lrs=[float(group["lr"] if after else group.get("initial_lr", group["lr"])) for group in groups],
            warmup_stretch=warmup_stretches(optimizer),
        )
        if after is not None and spec.resolved.decay != "constant":
            raise UserError(f"decay={spec.resolved.decay!r} beside {type(after).__name__}, which decays; drop one.")
        self.after = after if after is not None else make_plateau(optimizer, spec)
        self._fresh_after = None if after is None else deepcopy(after.state_dict())
        self._weight_decay = ScaledWeightDecay(groups)
        check_weight_decay(spec, self._weight_decay.initial)
        self._has_tensors = any(isinstance(group["lr"], torch.Tensor) for group in groups)
        self._updates = UpdateCounter()
        optimizer.register_step_post_hook(self._updates.add)
        self._stepped_at_update = self._walked_from = 0
        self.is_resumed = False
        self.optimizer = optimizer
        self._install(spec)
        super().__init__(optimizer)
        self.base_lrs = list(spec.peak_lrs)

    def _install(self, spec: ScheduleSpec) -> None:
        """Follow `spec` from now on; raises UserError and changes nothing if it is impossible."""
        _ = spec.learning_rates  # raises
        self.spec = spec
        self._weight_decay.set_mode(self.optimizer.param_groups, spec.resolved.weight_decay)

    def step(self) -> None:  # type: ignore[override]  # torch's deprecated epoch argument is not taken
        """Advance to the next update. A second call between two optimizer updates changes nothing."""
        updates = self._updates.count
        if updates and updates == self._stepped_at_update:
            return
        if updates and not self._stepped_at_update and self.last_epoch > self._walked_from:
            logger.warning(
                "scheduler.step() was called %d times before the first optimizer update, so update %d ran at the "
                "learning rate of update %d, and so on; fine if you meant to skip ahead, otherwise call "
                "scheduler.step() after optimizer.step().",
                self.last_epoch - self._walked_from,
                self._walked_from,
                self.last_epoch,
            )
        self._stepped_at_update = updates
        self.last_epoch += 1
        if len(self.optimizer.param_groups) != len(self.spec.peak_lrs):
            raise UserError(
                f"the optimizer has {len(self.optimizer.param_groups)} parameter groups, but had "
                f"{len(self.spec.peak_lrs)} when the scheduler was made; add groups before making it."
            )
        if self.awaits_critical_lr and self.last_epoch > 0:
            raise UserError(
                "initial_lr='auto' needs a Trainer, which measures it; give initial_lr a number, or call "
                "start_at_critical_lr before the first update."
            )
        if self.after is None or self.last_epoch <= self.spec.warmup_steps:
            self._apply(self.spec.learning_rates(self.last_epoch))
            return
        if not isinstance(self.after, ReduceLROnPlateau):
            self.after.step()
        self._follow_after()

    def observe_metric(self, metric: float) -> None:
        """Give a plateau the metric of an evaluation. It is ignored before the peak; patience counts from there.

        Raises UserError when no ReduceLROnPlateau follows the warmup.
        """
        if not isinstance(self.after, ReduceLROnPlateau):
            raise UserError(f"schedule {self.spec.name!r} does not read a metric; use 'warmup_plateau'.")
        if self.last_epoch >= self.spec.warmup_steps:
            self.after.step(metric)
            self._follow_after()

    def _follow_after(self) -> None:
        """Take note of the learning rates that `after` has set."""
        self._record([float(group["lr"]) for group in self.optimizer.param_groups])

    def start_at_critical_lr(self, lr: float) -> None:
        """Start the ramp at the critical learning rate `lr`, which shortens it: see `ScheduleSpec.starting_at`.

        Call it before the first update. A schedule with `initial_lr="auto"` waits for it.
        """
        self.critical_lr, self.awaits_critical_lr = lr, False
        self._follow(self.spec.starting_at(lr))

    def replan(self, *, peak_scale: float, num_warmup_steps: int, num_training_steps: int) -> None:
        """Go on at the same update with every peak times `peak_scale` and with other lengths.

        `num_warmup_steps` is the whole warmup; a start at the critical learning rate shortens it again. Raises
        UserError when the lengths are impossible.
        """
        spec = replace(
            self.spec,
            peak_lrs=[peak * peak_scale for peak in self.spec.peak_lrs],
            given_warmup_steps=num_warmup_steps,
            total_steps=num_training_steps,
        )
        self._follow(spec if self.critical_lr is None else spec.starting_at(self.critical_lr))

    def _follow(self, spec: ScheduleSpec) -> None:
        """Go on with another schedule at the same update."""
        self._install(spec)
        self._publish_peaks()
        self._apply(spec.learning_rates(self.last_epoch))

    def _publish_peaks(self) -> None:
        """Write the spec's peaks to where torch keeps them."""
        self.base_lrs = list(self.spec.peak_lrs)
        for group, peak in zip(self.optimizer.param_groups, self.spec.peak_lrs, strict=True):
            group["initial_lr"] = peak

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rates of the current update; nothing is chained, so asking twice is the same."""
        return list(self._last_lr)

    def _apply(self, learning_rates: list[float]) -> None:
        """Write the learning rates into the groups."""
        self._record(learning_rates)
        values = self._in_tensors(learning_rates) if self._has_tensors else learning_rates
        for group, lr in zip(self.optimizer.param_groups, values):  # noqa: B905  strict= costs a tenth of a step
            group["lr"] = lr

    def _in_tensors(self, learning_rates: list[float]) -> list[Any]:
        """Fill the tensors that hold learning rates: compiled optimizers read their storage, so they must stay."""
        rows = zip(self.optimizer.param_groups, learning_rates, strict=True)
        return [group["lr"].fill_(lr) if isinstance(group["lr"], torch.Tensor) else lr for group, lr in rows]

    def _record(self, learning_rates: list[float]) -> None:
        """Take note of the groups' learning rates, and set the weight decay that goes with them."""
        self._last_lr: list[float] = learning_rates  # type: ignore[assignment]  # torch's own list may hold tensors
        if self._weight_decay.mode != "coupled":
            self._weight_decay.write(self.optimizer, learning_rates, self.spec.levels)

    def state_dict(self) -> dict[str, Any]:
        """The update's index, the schedule and the state of what comes after it: plain data, safe for weights_only."""
        return {
            "last_epoch": self.last_epoch,
            "schedule": self.spec.to_dict(),
            "last_lr": [float(lr) for lr in self._last_lr],
            "critical_lr": self.critical_lr,
            "after": None if self.after is None else self.after.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; if its schedule differs, `on_schedule_change` decides.

        Learning rates are set again from the schedule, since loading the optimizer's state has put back the old ones.

        Raises UserError when the schedules differ under `error`, or when the state is that of another scheduler.
        """
        if "schedule" not in state_dict:
            raise UserError(
                "the checkpoint's scheduler is not a WarmupScheduler; "
                "resume with the schedule that wrote it, or start a new run from its weights."
            )
        saved, step = ScheduleSpec(**state_dict["schedule"]), state_dict["last_epoch"]
        configured = self.spec
        if self.awaits_critical_lr:  # measured once, when the run began
            self.critical_lr = resolve_critical_lr(state_dict.get("critical_lr"), self.on_schedule_change, step=step)
            configured = configured.starting_at(self.critical_lr)
            self.awaits_critical_lr = False
        spec = resolve_spec(saved, configured, self.on_schedule_change, step=step)
        if self._fresh_after is None:
            self.after = make_plateau(self.optimizer, spec)
        check_same_handover(self.after, state_dict["after"], self.on_schedule_change)
        self._install(spec)
        self.last_epoch, self._step_count, self._walked_from = step, step + 1, step
        self._stepped_at_update, self.is_resumed = self._updates.count, True
        self._publish_peaks()
        self._resume_after(state_dict, saved, configured)

    def _resume_after(self, state_dict: dict[str, Any], saved: ScheduleSpec, configured: ScheduleSpec) -> None:
        """Put the scheduler after the warmup, and the learning rates, back to where the checkpoint was."""
        step, state, warmup_steps = self.last_epoch, state_dict["after"], self.spec.warmup_steps
        if self.after is None:
            self._apply(self.spec.learning_rates(step))
        elif state is not None and step >= max(warmup_steps, saved.warmup_steps):
            load_after(self.after, state, saved, self.spec)
            self._apply(rescale(state_dict["last_lr"], saved, self.spec))
        else:  # it has not begun, or begins here: this warmup is shorter and over by now
            if self._fresh_after is not None:
                load_after(self.after, self._fresh_after, configured, self.spec)
            self._apply(self.spec.learning_rates(min(step, warmup_steps)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.optimizer.register_step_post_hook(self._updates.add)  # a copied optimizer has lost its hooks
