"""The settings of a recipe that decide its plan and its curve. Needs neither torch nor transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self, get_args

from hfwarmup.errors import UserError, check_choice
from hfwarmup.planning import caveats
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.planning.durations import Duration, update_steps
from hfwarmup.planning.plan import Plan, plan_run
from hfwarmup.planning.ranges import COUNT, RANGES, range_mistakes
from hfwarmup.planning.transformers_schedules import TRANSFORMERS_SCHEDULES, check_transformers_options
from hfwarmup.planning.values import hints_of, read_map, read_value
from hfwarmup.schedules.named import SCHEDULES, resolve_options, takes_length_from_beta2, user_factory
from hfwarmup.schedules.spec import OnLrMismatch, OnScheduleChange, ScheduleSpec, without_auto
from hfwarmup.schedules.warmup_shapes import beta2_warmup_steps

SCHEDULER_OPTIONS = {"on_schedule_change": get_args(OnScheduleChange), "on_lr_mismatch": get_args(OnLrMismatch)}
"""Entries of lr_scheduler_kwargs that are the torch scheduler's and no part of the curve, and what they may be."""

MEASURED_START = (
    "initial_lr auto: the start is measured when the run begins; a critical learning rate eta_c shortens the warmup to "
    "warmup_steps (1 - eta_c / peak). The whole warmup is shown here; see hfwarmup find-lr."
)
"""The line of a plan for a curve whose start is not known yet."""

DEFAULT_LEARNING_RATE = 1e-3
"""The peak of a recipe whose config is silent."""


@dataclass(kw_only=True)
class PlanSettings(WarmupArguments):
    """The settings that decide batch, peak, warmup and curve: the warmup's, and those of TrainingArguments beside them.

    The defaults are those of a recipe: transformers' own, but for the peak.
    """

    learning_rate: float = DEFAULT_LEARNING_RATE
    warmup_steps: float = 0
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    dataloader_drop_last: bool = False
    max_steps: int = -1
    num_train_epochs: float = 3.0
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] | None = None
    adam_beta2: float = 0.999
    optim: str = "adamw_torch_fused"
    tokens_per_sample: int | None = None
    """tokens of a training sample; None: not known"""
    model: str | None = None
    """the checkpoint to start from; empty: a new model; None: not known"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.lr_scheduler_kwargs, str):
            self.lr_scheduler_kwargs = read_map("lr_scheduler_kwargs", self.lr_scheduler_kwargs)

    @classmethod
    def pick(cls, settings: Mapping[str, Any]) -> Self:
        """From a mapping that may hold more; a None is left at the default."""
        names = [item.name for item in fields(cls)]
        return cls(**{name: settings[name] for name in names if settings.get(name) is not None})

    def plan(self, *, num_processes: int, num_samples: int | None = None, total_steps: int | None = None) -> Plan:
        """The plan on `num_processes` processes, with each number's reason.

        Args:
            num_processes: processes over all machines, each with `per_device_train_batch_size`.
            num_samples: size of the training set, for runs and warmups in epochs.
            total_steps: updates of the run; None: `max_steps`, or those of `num_train_epochs`.

        Raises UserError as `plan_run` does; for a warmup that is given twice, or given to a schedule that has a length
        of its own; for a `target_batch_size` that the micro-batches do not divide; and for a run of unknown length.
        """
        if mistakes := self.mistakes():
            raise UserError(*(message for _, message in mistakes))
        COUNT.check("num_processes", num_processes)
        COUNT.check("num_samples", num_samples)
        if num_samples is None and self._warmup_in_epochs:
            raise UserError(_in_epochs(f"warmup={str(self.warmup)!r}", "a warmup in steps"))
        accumulation = self.accumulation(num_processes)
        total_steps = total_steps or self._total_steps(num_processes, accumulation, num_samples)
        from_beta2 = self.takes_warmup_from_beta2
        plan = plan_run(
            learning_rate=self.learning_rate,
            warmup=self._warmup(),
            total_steps=total_steps,
            per_device_batch_size=self.per_device_train_batch_size,
            num_processes=num_processes,
            gradient_accumulation_steps=accumulation,
            reference_batch_size=self.reference_batch_size,
            reference_total_steps=self._reference_total_steps(num_samples),
            lr_scaling=self.lr_scaling,
            warmup_scaling="constant_steps" if from_beta2 else self.warmup_scaling,
            max_warmup_fraction=1.0 if from_beta2 else self.max_warmup_fraction,
            samples_per_epoch=num_samples,
            tokens_per_sample=self.tokens_per_sample,
        )
        d_model = self._curve_options().get("d_model")
        plan = plan if d_model is None else _absolute_peak(plan, d_model)
        return self._with_caveats(self._with_curve(plan))

    def mistakes(self) -> list[tuple[str, str]]:
        """The mistakes that do not depend on data or processes: the setting, and one line on it."""
        found = range_mistakes(vars(self))
        if kinds := self._kind_mistakes():
            return [*found, *kinds]
        checks = {
            "warmup": self._check_one_warmup,
            "lr_scheduler_type": self._check_name,
            "lr_scheduler_kwargs": self._check_options,
        }
        for setting, check in checks.items():
            try:
                check()
            except UserError as error:
                found.append((setting, str(error)))
        return found

    def _kind_mistakes(self) -> list[tuple[str, str]]:
        """The settings that are no numbers and not of their kind, each with one line."""
        found = []
        for name, hint in hints_of(PlanSettings).items():
            try:
                if name not in RANGES:
                    read_value(name, getattr(self, name), hint)
            except UserError as error:
                found.append((name, str(error)))
        return found

    def spec(self, plan: Plan) -> ScheduleSpec:
        """The schedule that `plan` is laid out on, for one parameter group.

        With `initial_lr: auto` it is the whole warmup; a start that only the run can measure makes it shorter.

        Raises UserError for a schedule that is not of this package, and for options that it does not take.
        """
        options, _ = without_auto(self.lr_scheduler_type, self._curve_options())
        if self.takes_warmup_from_beta2:
            options.setdefault("beta2", self.adam_beta2)
        return ScheduleSpec(
            name=self.lr_scheduler_type,
            options=options,
            given_warmup_steps=None if self.takes_warmup_from_beta2 else plan.warmup_steps,
            total_steps=plan.total_steps,
            peak_lrs=[plan.peak_lr],
        )

    @property
    def starts_at_critical_lr(self) -> bool:
        """Whether the start of the warmup is measured when the run begins."""
        return self._curve_options().get("initial_lr") == "auto"

    @property
    def takes_warmup_from_beta2(self) -> bool:
        """Whether the schedule's length is 2 / (1 - beta2), not an argument."""
        return takes_length_from_beta2(self.lr_scheduler_type, self._curve_options())

    @property
    def needs_num_samples(self) -> bool:
        """Whether the plan depends on the size of the training set: the run or its warmup is given in epochs."""
        return self.max_steps <= 0 or self._warmup_in_epochs

    @property
    def _warmup_in_epochs(self) -> bool:
        duration = self.warmup_duration
        return duration is not None and duration.unit == "epochs" and duration.amount > 0

    def accumulation(self, num_processes: int) -> int:
        """Micro-batches an update: `gradient_accumulation_steps`, or what keeps `target_batch_size`."""
        if self.target_batch_size is None:
            return self.gradient_accumulation_steps
        micro_batch = self.per_device_train_batch_size * num_processes
        if self.target_batch_size < micro_batch or self.target_batch_size % micro_batch:
            raise UserError(
                f"target_batch_size={self.target_batch_size} is no multiple of {self.per_device_train_batch_size} per "
                f"device x {num_processes} processes; change per_device_train_batch_size or target_batch_size."
            )
        return self.target_batch_size // micro_batch

    def _total_steps(self, num_processes: int, accumulation: int, num_samples: int | None) -> int:
        if self.max_steps > 0:
            return self.max_steps
        if num_samples is None:
            raise UserError(_in_epochs(f"num_train_epochs={self.num_train_epochs:g}", "max_steps"))
        return update_steps(
            num_samples,
            epochs=self.num_train_epochs,
            batch_size=self.per_device_train_batch_size,
            num_processes=num_processes,
            accumulation=accumulation,
            drop_last=self.dataloader_drop_last,
        )

    def _reference_total_steps(self, num_samples: int | None) -> int | None:
        """A run of so many epochs has more updates at a smaller reference batch; a run of max_steps has as many."""
        if self.max_steps > 0 or self.reference_batch_size is None or num_samples is None:
            return None
        return math.ceil(self.num_train_epochs * num_samples / self.reference_batch_size)

    def _warmup(self) -> int | Duration:
        if self.takes_warmup_from_beta2:
            return beta2_warmup_steps(self._curve_options().get("beta2", self.adam_beta2))
        if self.warmup_duration is not None:
            return self.warmup_duration
        # transformers' own warmup_steps: below 1 a share of the run, from 1 on updates
        return int(self.warmup_steps) if self.warmup_steps >= 1 else Duration(amount=100 * self.warmup_steps, unit="%")

    def _with_curve(self, plan: Plan) -> Plan:
        """The plan with the first and last learning rate of its schedule, where the schedule is of this package."""
        if self.lr_scheduler_type in TRANSFORMERS_SCHEDULES:
            name = self.lr_scheduler_type
            return replace(plan, schedule=name, reasons=(*plan.reasons, f"schedule {name}, transformers' own"))
        spec = self.spec(plan)
        measured = self.starts_at_critical_lr
        return replace(
            plan,
            schedule=spec.name,
            length_from_beta2=self.takes_warmup_from_beta2,
            first_lr=None if measured else spec.learning_rates(0)[0],
            last_lr=spec.learning_rates(plan.total_steps - 1)[0],
            reasons=(*plan.reasons, MEASURED_START if measured else spec.summary()),
        )

    def _with_caveats(self, plan: Plan) -> Plan:
        """The plan with its warnings."""
        pretraining = self.model == "" and self.tokens_per_sample is not None
        peak_is_scaled = "d_model" not in self._curve_options()
        found = (
            caveats.short_warmup(plan.warmup_steps, plan.total_steps) if pretraining else None,
            caveats.linear_rule_with_adam(self.optim, self.lr_scaling, plan.scale) if peak_is_scaled else None,
            caveats.beyond_noise_scale(plan.global_batch_size, self.noise_scale_samples),
            caveats.constant_warmup(self.lr_scheduler_type),
            caveats.dropped_warmup(self.lr_scheduler_type, plan.warmup_steps),
            caveats.peak_of_zero(plan.peak_lr),
        )
        return replace(plan, warnings=(*plan.warnings, *(caveat for caveat in found if caveat)))

    def _check_name(self) -> None:
        if self.lr_scheduler_type not in TRANSFORMERS_SCHEDULES:
            user_factory(self.lr_scheduler_type)

    def _check_options(self) -> None:
        if self.lr_scheduler_type in SCHEDULES:
            options, _ = without_auto(self.lr_scheduler_type, self._curve_options())
            resolve_options(self.lr_scheduler_type, options)
            for name, choices in SCHEDULER_OPTIONS.items():
                check_choice(name, (self.lr_scheduler_kwargs or {}).get(name, choices[0]), choices)
        elif self.lr_scheduler_type in TRANSFORMERS_SCHEDULES:
            check_transformers_options(self.lr_scheduler_type, self.lr_scheduler_kwargs or {})

    def _check_one_warmup(self) -> None:
        if self.warmup is None:
            return
        if self.warmup_steps:
            steps = str(self.warmup_steps).removesuffix(".0")
            raise UserError(f"warmup={str(self.warmup)!r} and warmup_steps={steps} are both given; keep warmup.")
        if self.takes_warmup_from_beta2:
            raise UserError(
                f"warmup={str(self.warmup)!r}: schedule {self.lr_scheduler_type!r} takes its length from adam_beta2; "
                "leave warmup empty."
            )

    def _curve_options(self) -> dict[str, Any]:
        return {
            name: value for name, value in (self.lr_scheduler_kwargs or {}).items() if name not in SCHEDULER_OPTIONS
        }


def _in_epochs(length: str, otherwise: str) -> str:
    """The message for a length in epochs where the size of the training set is not known."""
    return f"{length} depends on the data; give --num_samples (the size of the training set), or {otherwise}."


def _absolute_peak(plan: Plan, d_model: int) -> Plan:
    """The plan under noam with `d_model`, whose peak is (d_model T_w)^-0.5 whatever learning_rate says."""
    peak_lr = (d_model * max(1, plan.warmup_steps)) ** -0.5
    batch_reason, _, *others = plan.reasons
    reason = f"peak_lr {peak_lr:g} = (d_model {d_model} x warmup_steps)^-0.5: learning_rate and lr_scaling do not act"
    return replace(plan, peak_lr=peak_lr, reasons=(batch_reason, reason, *others))
