"""The one torch scheduler: a schedule laid over the parameter groups of an optimizer, and any scheduler after it."""

from __future__ import annotations

import logging
from collections.abc import Sized
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from hfwarmup.errors import UserError, check_choice
from hfwarmup.optim.groups import UpdateCounter, warmup_stretches, with_beta2
from hfwarmup.optim.handover import check_kept, plateau, rescale, restore
from hfwarmup.optim.resume import measured_start, settle
from hfwarmup.optim.weight_decay import ScaledWeightDecay, check_weight_decay
from hfwarmup.schedules.spec import OnScheduleChange, ScheduleSpec, without_auto

logger = logging.getLogger(__name__)

OnLrMismatch = Literal["warn", "error"]


class WarmupScheduler(LRScheduler):
    """A schedule by name on a torch optimizer; step it once after every `optimizer.step()`.

    Update t of a parameter group runs at schedule(t), with the group's own peak (its `lr`), start and floor, and with
    its own length of warmup where it has a `warmup_stretch` (see `hfwarmup.optim.groups.stretch_warmup`).

    The index t follows the optimizer's updates: further calls of `step()` between two updates change nothing, so that
    accelerate, which calls a prepared scheduler once per process, comes out right. Where the optimizer has never
    stepped (a walk along the curve), every call counts, and a warning says so if updates follow.

    Args:
        optimizer: its groups' learning rates are the peaks.
        name: a schedule, see `hfwarmup.schedules.named.SCHEDULES`.
        num_warmup_steps: updates to the peak; None or 0 for the names that take it from the optimizer's beta2.
        num_training_steps: updates of the run; not needed for decays that have no end.
        after: a torch scheduler that takes over at the peak; see `warmup`.
        on_schedule_change: what `load_state_dict` does when the checkpoint's schedule is another one: `error` stops,
            `config` follows this one from the checkpoint's update on, `checkpoint` goes on with the old one.
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
        self.spec = ScheduleSpec(
            name=name,
            options=with_beta2(optimizer, name, options),
            warmup_steps=num_warmup_steps,
            total_steps=num_training_steps,
            # initial_lr is torch's convention for a peak that an earlier scheduler has moved away from.
            peak_lrs=[float(group["lr"] if after else group.get("initial_lr", group["lr"])) for group in groups],
            warmup_stretch=warmup_stretches(optimizer),
        )
        if after is not None and self.spec.resolved.decay != "constant":
            raise UserError(
                f"decay={self.spec.resolved.decay!r} beside {type(after).__name__}, which decays; drop one."
            )
        self.after = after if after is not None else plateau(optimizer, self.spec)
        self._fresh_after = None if after is None else deepcopy(after.state_dict())
        self._weight_decay = ScaledWeightDecay(groups)
        check_weight_decay(self.spec, self._weight_decay.initial)
        self._lr_tensors = any(isinstance(group["lr"], torch.Tensor) for group in groups)
        self._updates = UpdateCounter()
        optimizer.register_step_post_hook(self._updates)
        self._stepped_at_update = self._walked_from = 0
        self.is_resumed = False
        self.optimizer = optimizer
        self._lay(self.spec)
        super().__init__(optimizer)
        self.base_lrs = list(self.spec.peak_lrs)

    def _lay(self, spec: ScheduleSpec) -> None:
        """Take over `spec`, or nothing of it if it is impossible; the hot path reads only plain attributes."""
        self._learning_rates = spec.learning_rates
        self.spec = spec
        self._weight_decay.lay(self.optimizer.param_groups, spec.resolved.weight_decay)
        self._scales_decay = spec.resolved.weight_decay != "coupled"
        self._warmup_steps = spec.num_warmup_steps
        self._last_scheduled = self._warmup_steps if self.after is not None else float("inf")
        if self.awaits_critical_lr:
            self._last_scheduled = 0  # the step to update 1 ends in an error

    def step(self) -> None:  # type: ignore[override]  # torch's deprecated epoch argument is not taken
        """Advance to the next update. Calls beyond the first between two optimizer updates change nothing."""
        updates = self._updates.count
        if updates and updates == self._stepped_at_update:
            return
        if updates and not self._stepped_at_update and self.last_epoch > self._walked_from:
            self._warn_of_walk()
        self._stepped_at_update = updates
        self._step_count += 1
        self.last_epoch += 1
        if self.last_epoch <= self._last_scheduled:
            self._apply(self._learning_rates(self.last_epoch))
            return
        if self.awaits_critical_lr:
            raise UserError(
                "initial_lr='auto' is measured by a Trainer and was not; give initial_lr a number, or call "
                "start_at_critical_lr before the first update."
            )
        assert self.after is not None
        if not isinstance(self.after, ReduceLROnPlateau):
            self.after.step()
        self._follow_after()

    def _warn_of_walk(self) -> None:
        steps = self.last_epoch - self._walked_from
        logger.warning(
            "scheduler.step() was called %d times before the first optimizer update, so update %d ran at the learning "
            "rate of update %d, and so on; well where it skips to there, else call it after optimizer.step().",
            steps,
            self._walked_from,
            self.last_epoch,
        )

    def observe_metric(self, metric: float) -> None:
        """Give a plateau the metric of an evaluation. It is ignored until the peak; patience counts from there.

        Raises ValueError when no ReduceLROnPlateau follows the warmup.
        """
        if not isinstance(self.after, ReduceLROnPlateau):
            raise UserError(f"schedule {self.spec.name!r} listens to no metric; use 'warmup_plateau'.")
        if self.last_epoch >= self._warmup_steps:
            self.after.step(metric)
            self._follow_after()

    def _follow_after(self) -> None:
        """Take note of the learning rates that `after` has set."""
        self._check_groups(self._last_lr)
        self._last_lr = [float(group["lr"]) for group in self.optimizer.param_groups]
        if self._scales_decay:
            self._weight_decay.write(self.optimizer, self._last_lr, self.spec.levels)

    def start_at_critical_lr(self, lr: float) -> None:
        """Begin the ramp at the critical learning rate `lr`, which shortens it: see `ScheduleSpec.starting_at`.

        Call it before the first update; it is what `initial_lr="auto"` waits for.
        """
        self.critical_lr, self.awaits_critical_lr = lr, False
        self._lay(self.spec.starting_at(lr))
        self._apply(self._learning_rates(self.last_epoch))

    def replan(self, *, peak_scale: float, num_warmup_steps: int, num_training_steps: int) -> None:
        """Lay the schedule anew, with every peak times `peak_scale` and other lengths; the update's index stays.

        `num_warmup_steps` is the whole warmup, which a start at the critical learning rate shortens again. Raises
        ValueError when the lengths are impossible.
        """
        spec = replace(
            self.spec,
            peak_lrs=[peak * peak_scale for peak in self.spec.peak_lrs],
            warmup_steps=num_warmup_steps,
            total_steps=num_training_steps,
        )
        self._lay(spec if self.critical_lr is None else spec.starting_at(self.critical_lr))
        self._own_peaks()
        self._apply(self._learning_rates(self.last_epoch))

    def _own_peaks(self) -> None:
        """Tell torch's side of the spec's peaks."""
        self.base_lrs = list(self.spec.peak_lrs)
        for group, peak in zip(self.optimizer.param_groups, self.spec.peak_lrs, strict=True):
            group["initial_lr"] = peak

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rates of the current update; nothing is chained, so asking twice is the same."""
        return list(self._last_lr)

    def _apply(self, learning_rates: list[float]) -> None:
        """Write the learning rates into the groups, into a tensor where the optimizer keeps it as one."""
        self._check_groups(learning_rates)
        for group, lr in zip(self.optimizer.param_groups, learning_rates):  # noqa: B905  the lengths are checked, and strict= costs
            if self._lr_tensors and isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._last_lr: list[float] = learning_rates  # type: ignore[assignment]  # torch's own list may hold tensors
        if self._scales_decay:
            self._weight_decay.write(self.optimizer, learning_rates, self.spec.levels)

    def _check_groups(self, learning_rates: Sized) -> None:
        if len(self.optimizer.param_groups) != len(learning_rates):
            raise UserError(
                f"the optimizer has {len(self.optimizer.param_groups)} parameter groups, and had {len(learning_rates)} "
                "when the scheduler was made; add groups before making it."
            )

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
        """Go on from a checkpoint, under the resume policy `on_schedule_change` where its schedule is another one.

        Learning rates are set again from the schedule, since loading the optimizer's state has put back the old ones.

        Raises ValueError when the schedules differ and the policy is `error`, or when the state is another scheduler's.
        """
        if "schedule" not in state_dict:
            raise UserError(
                "the checkpoint's scheduler is not a WarmupScheduler; "
                "resume with the schedule that wrote it, or start a new run from its weights."
            )
        saved, step = ScheduleSpec(**state_dict["schedule"]), state_dict["last_epoch"]
        configured = self.spec
        if self.awaits_critical_lr:  # measured once, when the run began
            self.critical_lr = measured_start(state_dict.get("critical_lr"), self.on_schedule_change, step=step)
            configured = configured.starting_at(self.critical_lr)
            self.awaits_critical_lr = False
        spec = settle(saved, configured, self.on_schedule_change, step=step)
        if self._fresh_after is None:
            self.after = plateau(self.optimizer, spec)
        check_kept(self.after, state_dict["after"], self.on_schedule_change)
        self._lay(spec)
        self.last_epoch, self._step_count, self._walked_from = step, step + 1, step
        self._stepped_at_update, self.is_resumed = self._updates.count, True
        self._own_peaks()
        self._restore(state_dict, saved, configured)

    def _restore(self, state_dict: dict[str, Any], saved: ScheduleSpec, configured: ScheduleSpec) -> None:
        """Put what comes after the warmup, and the learning rates, to where the checkpoint was."""
        step, state = self.last_epoch, state_dict["after"]
        if self.after is None:
            self._apply(self._learning_rates(step))
        elif state is not None and step >= max(self._warmup_steps, saved.num_warmup_steps):
            restore(self.after, state, saved, self.spec)
            self._apply(rescale(state_dict["last_lr"], saved, self.spec))
        else:  # it has not begun, or begins here: this warmup is shorter and over by now
            if self._fresh_after is not None:
                restore(self.after, self._fresh_after, configured, self.spec)
            self._apply(self._learning_rates(min(step, self._warmup_steps)))

    def __getstate__(self) -> dict[str, Any]:
        """Without the compiled curve, which is made again; so a scheduler can be copied and pickled in mid-run."""
        return {name: value for name, value in vars(self).items() if name != "_learning_rates"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._learning_rates = self.spec.learning_rates
        self.optimizer.register_step_post_hook(self._updates)  # a copied optimizer has lost its hooks
