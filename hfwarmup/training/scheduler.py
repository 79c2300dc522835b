"""The one torch scheduler: a schedule laid over the parameter groups of an optimizer, and any scheduler after it."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from hfwarmup.schedules.options import BETA2_WARMUPS
from hfwarmup.schedules.spec import ScheduleSpec, without_auto
from hfwarmup.training.after import plateau, rescale, restore
from hfwarmup.training.optim import UpdateCounter, check_weight_decay, decay_coefficient, warmup_stretches, with_beta2
from hfwarmup.training.resume import OnScheduleChange, measured_start, settle

OnLrMismatch = Literal["warn", "error"]


class WarmupScheduler(LRScheduler):
    """A schedule by name on a torch optimizer; step it once after every `optimizer.step()`.

    Update t of a parameter group runs at schedule(t), with the group's own peak (its `lr`), start and floor, and with
    its own length of warmup where it has a `warmup_stretch` (see `hfwarmup.training.optim.stretch_warmup`).

    The index t follows the optimizer's updates: further calls of `step()` between two updates change nothing, so that
    accelerate, which calls a prepared scheduler once per process, comes out right. Where the optimizer has never
    stepped (a walk along the curve), every call counts.

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
        ValueError: one line with what is wrong, its value and the remedy.

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
        _check_choice("on_schedule_change", on_schedule_change, get_args(OnScheduleChange))
        _check_choice("on_lr_mismatch", on_lr_mismatch, get_args(OnLrMismatch))
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
            raise ValueError(
                f"decay={self.spec.resolved.decay!r} beside {type(after).__name__}, which decays; drop one."
            )
        self.after = after if after is not None else plateau(optimizer, self.spec)
        self._weight_decays = [
            group.setdefault("initial_weight_decay", group["weight_decay"]) if "weight_decay" in group else 0.0
            for group in groups
        ]
        check_weight_decay(self.spec, self._weight_decays)
        self._lr_tensors = any(isinstance(group["lr"], torch.Tensor) for group in groups)
        self._updates = UpdateCounter()
        optimizer.register_step_post_hook(self._updates)
        self._stepped_at_update = 0
        self._lay(self.spec)
        super().__init__(optimizer)
        self.base_lrs = list(self.spec.peak_lrs)

    def _lay(self, spec: ScheduleSpec) -> None:
        """Take over `spec`, or nothing of it if it is impossible; the hot path reads only plain attributes."""
        self._learning_rates = spec.learning_rates
        self.spec = spec
        self._coupled = spec.resolved.weight_decay == "coupled"
        self._warmup_steps = spec.num_warmup_steps
        self._last_scheduled = self._warmup_steps if self.after is not None else float("inf")
        if self.awaits_critical_lr:
            self._last_scheduled = 0  # the step to update 1 ends in an error

    def step(self) -> None:  # type: ignore[override]  # torch's deprecated epoch argument is not taken
        """Advance to the next update. Calls beyond the first between two optimizer updates change nothing."""
        updates = self._updates.count
        if updates and updates == self._stepped_at_update:
            return
        self._stepped_at_update = updates
        self._step_count += 1
        self.last_epoch += 1
        if self.last_epoch <= self._last_scheduled:
            self._apply(self._learning_rates(self.last_epoch))
            return
        if self.awaits_critical_lr:
            raise ValueError(
                "initial_lr='auto' is measured by a Trainer and was not; give initial_lr a number, or call "
                "start_at_critical_lr before the first update."
            )
        assert self.after is not None
        if not isinstance(self.after, ReduceLROnPlateau):
            self.after.step()
        self._follow_after()

    def observe_metric(self, metric: float) -> None:
        """Give a plateau the metric of an evaluation. It is ignored until the peak; patience counts from there.

        Raises ValueError when no ReduceLROnPlateau follows the warmup.
        """
        if not isinstance(self.after, ReduceLROnPlateau):
            raise ValueError(f"schedule {self.spec.name!r} listens to no metric; use 'warmup_plateau'.")
        if self.last_epoch >= self._warmup_steps:
            self.after.step(metric)
            self._follow_after()

    def _follow_after(self) -> None:
        """Take note of the learning rates that `after` has set."""
        self._check_groups(self._last_lr)
        self._last_lr = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._apply_weight_decay()

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
        if not self._coupled:
            self._apply_weight_decay()

    def _check_groups(self, learning_rates: Sized) -> None:
        if len(self.optimizer.param_groups) != len(learning_rates):
            raise ValueError(
                f"the optimizer has {len(self.optimizer.param_groups)} parameter groups, and had {len(learning_rates)} "
                "when the scheduler was made; add groups before making it."
            )

    def _apply_weight_decay(self) -> None:
        if self._coupled:
            return
        mode = self.spec.resolved.weight_decay
        rows = zip(self.optimizer.param_groups, self._weight_decays, self._last_lr, self.spec.levels, strict=True)
        for group, weight_decay, lr, level in rows:
            if weight_decay and (level.peak or mode == "constant"):
                group["weight_decay"] = decay_coefficient(mode, weight_decay, lr=float(lr), peak_lr=level.peak)

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
            raise ValueError(
                "the checkpoint's scheduler is not a WarmupScheduler; "
                "resume with the schedule that wrote it, or start a new run from its weights."
            )
        saved, step = ScheduleSpec(**state_dict["schedule"]), state_dict["last_epoch"]
        configured = self.spec
        if self.awaits_critical_lr:  # measured once, when the run began
            self.critical_lr = measured_start(state_dict.get("critical_lr"), self.on_schedule_change, step=step)
            configured = configured.starting_at(self.critical_lr)
            self.awaits_critical_lr = False
        self._lay(settle(saved, configured, self.on_schedule_change, step=step))
        self.last_epoch, self._step_count = step, step + 1
        self._stepped_at_update = self._updates.count
        self._own_peaks()
        if self.after is None or step < self._warmup_steps:
            self._apply(self._learning_rates(step))
        elif step < saved.num_warmup_steps:  # a shorter warmup, over by now: what comes after it begins here
            self._apply(self._learning_rates(self._warmup_steps))
        else:
            restore(self.after, state_dict["after"], saved, self.spec)
            self._apply(rescale(state_dict["last_lr"], saved, self.spec))


def warmup(after: LRScheduler, *, num_warmup_steps: int, shape: str = "gradual", **options: Any) -> WarmupScheduler:
    """A warmup in front of any torch scheduler: `num_warmup_steps` updates up to the first learning rate of `after`,
    which then begins to count.

    Update t < T_w runs at the warmup's learning rate, update T_w + n at what `after` gives for its own n. After a
    ReduceLROnPlateau is given its metric by `observe_metric`; before the peak it does not listen.

    Args:
        after: a torch scheduler that has not been stepped; its optimizer is used.
        num_warmup_steps: T_w, optimizer updates.
        shape: gradual, exponential, cosine, polynomial, saturating, linear or constant.
        **options: `initial_lr` or `initial_ratio`, `power`, `tau`, `weight_decay`, `on_schedule_change`.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> scheduler = warmup(torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5), num_warmup_steps=2, initial_lr=0.5)
    >>> applied = []
    >>> for _ in range(7):
    ...     applied += scheduler.get_last_lr()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> applied
    [0.5, 0.75, 1.0, 1.0, 0.5, 0.5, 0.25]
    """
    if shape in BETA2_WARMUPS or shape == "noam":
        raise ValueError(
            f"shape={shape!r} does not reach the peak at an update of your choice; use for example 'gradual'."
        )
    if isinstance(after, WarmupScheduler):
        raise ValueError("after is a WarmupScheduler, which has its own warmup; choose its decay instead.")
    if after.last_epoch > 0:
        raise ValueError(f"after has made {after.last_epoch} steps; wrap it before it is stepped.")
    return WarmupScheduler(after.optimizer, num_warmup_steps=num_warmup_steps, after=after, warmup=shape, **options)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(choices)}.")
