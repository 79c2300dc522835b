"""Everything that determines the learning rates of a run, as plain data that a checkpoint can keep and compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any, Literal

from hfwarmup.errors import UserError
from hfwarmup.schedules.curve import Curve, Levels, Schedule, compile_curve
from hfwarmup.schedules.decay_shapes import DECAY_SHAPES
from hfwarmup.schedules.named import resolve_options, takes_length_from_beta2, user_factory
from hfwarmup.schedules.options import ScheduleOptions, plain
from hfwarmup.schedules.warmup_shapes import DEFAULT_INITIAL_LR

OnScheduleChange = Literal["error", "config", "checkpoint"]
"""What a resumed run does when its schedule differs from the checkpoint's: error stops it, config follows the
configured schedule, checkpoint keeps the saved one."""
OnLrMismatch = Literal["warn", "error"]
"""What a scheduler does when somebody else has changed a group's learning rate."""


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """A schedule over the parameter groups of an optimizer.

    >>> spec = ScheduleSpec(name="warmup_linear", given_warmup_steps=2, total_steps=4, peak_lrs=[1.0, 0.1])
    >>> spec.learning_rates(3)
    [0.5, 0.05]
    """

    name: str
    """a name of this package or of the user's own"""
    options: dict[str, Any] = field(default_factory=dict)
    """the options that were given; `resolved` has the name's defaults too"""
    given_warmup_steps: int | None
    """updates to the peak as they were given; None or 0 for the names that take them from beta2"""
    total_steps: int | None
    """updates of the run"""
    peak_lrs: Sequence[float]
    """the peak of each parameter group"""
    warmup_stretch: Sequence[float] = ()
    """factor of the warmup's length in each parameter group; empty: 1 in all"""

    def __post_init__(self) -> None:
        for peak in self.peak_lrs:
            if not 0.0 <= peak < math.inf:
                raise UserError(f"learning rate {peak} of a parameter group: give a finite one, 0 or more.")
        object.__setattr__(self, "options", {name: plain(value) for name, value in self.options.items()})
        for length in ("given_warmup_steps", "total_steps"):
            object.__setattr__(self, length, plain(getattr(self, length)))

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: the cached curves are closures, which cannot be copied or pickled."""
        return {name: vars(self)[name] for name in self.__dataclass_fields__}

    @cached_property
    def curve(self) -> Curve | None:
        """The curve of a group whose warmup is not stretched; None for a user's own schedule, which is a function."""
        return None if user_factory(self.name) is not None else self._curve(1.0)

    def _curve(self, stretch: float) -> Curve:
        if stretch != 1.0 and takes_length_from_beta2(self.name, self.options):
            raise UserError(
                f"warmup_stretch={stretch}: schedule {self.name!r} takes its length from beta2; drop one of them."
            )
        options = resolve_options(self.name, self.options)
        return compile_curve(options, warmup_steps=self._stretched(stretch), total_steps=self.total_steps)

    def _stretched(self, stretch: float) -> int | None:
        steps = self.given_warmup_steps
        return steps if stretch == 1.0 else round((steps or 0) * stretch)

    @property
    def resolved(self) -> ScheduleOptions:
        """All options of the schedule; those of a user's own schedule are the defaults."""
        return ScheduleOptions() if self.curve is None else self.curve.options

    @cached_property
    def warmup_steps(self) -> int:
        """Updates until every group is at its peak, also where beta2 sets them."""
        longest = max(self.warmup_stretch, default=1.0)
        return (self._stretched(longest) or 0) if self.curve is None else self._curve(longest).warmup_steps

    @cached_property
    def levels(self) -> list[Levels]:
        """Start, peak and floor of each group; of a user's own schedule only the peak is known."""
        if self.curve is None:
            return [Levels(0.0, peak, 0.0) for peak in self.peak_lrs]
        return [self.curve.levels(peak) for peak in self.peak_lrs]

    @cached_property
    def learning_rates(self) -> Callable[[int], list[float]]:
        """0-based update -> the learning rate of each group."""
        if not self.warmup_stretch:
            return self._bind(1.0, self.levels)
        parts = [self._bind(stretch, [level]) for stretch, level in zip(self.warmup_stretch, self.levels, strict=True)]
        return lambda step: [lr for part in parts for lr in part(step)]

    def _bind(self, stretch: float, levels: Sequence[Levels]) -> Callable[[int], list[float]]:
        """The learning rates of the groups with one stretch."""
        factory = user_factory(self.name)
        if factory is None:
            return self._curve(stretch).bind(levels)
        lengths = {"num_warmup_steps": self._stretched(stretch), "num_training_steps": self.total_steps}
        schedules: list[Schedule] = [factory(peak_lr=level.peak, **lengths, **self.options) for level in levels]
        return lambda step: [_checked_rate(self.name, step, schedule(step)) for schedule in schedules]

    def summary(self) -> str:
        """One line on the first group: its learning rate at the first update, at the end of its warmup and at the last.

        The warmup ends at update T_w, or at T_w - 1 where it counts from 1 (noam and the warmups of beta2).

        >>> ScheduleSpec(name="warmup_linear", given_warmup_steps=2, total_steps=4, peak_lrs=[1.0]).summary()
        'schedule warmup_linear: learning rate 1e-07 at update 0, 1 at update 2, 0.5 at update 3'
        """
        first_count = 0 if self.curve is None else self.curve.first_count
        updates = [0, max(0, self.warmup_steps - first_count), *([self.total_steps - 1] if self.total_steps else [])]
        rates = [f"{self.learning_rates(update)[0]:g} at update {update}" for update in dict.fromkeys(updates)]
        return f"schedule {self.name}: learning rate {', '.join(rates)}"

    def starting_at(self, critical_lr: float) -> ScheduleSpec:
        """The same schedule whose ramp starts at `critical_lr` and climbs at the same rate.

        With eta the highest peak the ramp takes T_w (1 - critical_lr / eta) updates, and none if critical_lr is eta
        or more (Kalra & Barkeshli 2024, arXiv:2406.09405, section 6.1). Every group starts at the same share of its
        peak. Unchanged at 0.

        >>> spec = ScheduleSpec(name="gradual_warmup", given_warmup_steps=100, total_steps=1000, peak_lrs=[1e-3])
        >>> spec.starting_at(2.5e-4).warmup_steps, spec.starting_at(2.5e-4).learning_rates(0)
        (75, [0.00025])
        """
        share = min(1.0, critical_lr / max(self.peak_lrs)) if max(self.peak_lrs) > 0.0 else 0.0
        if share == 0.0:
            return self
        return replace(
            self,
            options={**self.options, "initial_ratio": share},
            given_warmup_steps=round((self.given_warmup_steps or 0) * (1.0 - share)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `ScheduleSpec(**…)` makes the same schedule again."""
        return {**asdict(self), "peak_lrs": list(self.peak_lrs), "warmup_stretch": list(self.warmup_stretch)}

    def differences(self, other: ScheduleSpec) -> dict[str, tuple[Any, Any]]:
        """What differs between this schedule and `other`, by name: (this one's value, the other's).

        If the decay has no end, a longer run is no difference.

        >>> short = ScheduleSpec(name="warmup_linear", given_warmup_steps=10, total_steps=100, peak_lrs=[1.0])
        >>> short.differences(replace(short, total_steps=200))
        {'max_steps': (100, 200)}
        """
        mine, others = self._comparable(), other._comparable()
        keys = [*mine, *(key for key in others if key not in mine)]
        return {key: (mine.get(key), others.get(key)) for key in keys if mine.get(key) != others.get(key)}

    def _comparable(self) -> dict[str, Any]:
        reads_length = self.curve is None or DECAY_SHAPES[self.resolved.decay].ends
        peaks = list(dict.fromkeys(self.peak_lrs))
        return {
            **({"schedule": self.name, **self.options} if self.curve is None else self.resolved.used()),
            "warmup_steps": self.warmup_steps,
            "max_steps": self.total_steps if reads_length else None,
            "learning_rate": peaks[0] if len(peaks) == 1 else list(self.peak_lrs),
            **({"warmup_stretch": list(self.warmup_stretch)} if self.warmup_stretch else {}),
        }


def _checked_rate(name: str, step: int, lr: float) -> float:
    """The learning rate that a user's own schedule returned; UserError if it cannot be one."""
    if not isinstance(lr, Real) or not 0.0 <= lr < math.inf:
        raise UserError(
            f"schedule {name!r}: it returned {lr!r} as the learning rate of update {step}; return a finite number, "
            "0 or more."
        )
    return float(lr)  # a checkpoint can keep no number of another library


def without_auto(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """`options` without `initial_lr: auto`, and whether it was there; such a start is measured when a run begins.

    Raises UserError if schedule `name` does not read initial_lr, or if initial_ratio is given too.

    >>> without_auto("warmup_linear", {"initial_lr": "auto", "final_ratio": 0.1})
    ({'final_ratio': 0.1}, True)
    """
    if options.get("initial_lr") != "auto" or user_factory(name) is not None:
        return options, False
    resolve_options(name, {**options, "initial_lr": DEFAULT_INITIAL_LR})
    return {option: value for option, value in options.items() if option != "initial_lr"}, True
