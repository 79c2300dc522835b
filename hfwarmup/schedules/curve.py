"""A schedule without its peak: the options and lengths that make a curve, and the learning rates that lie on it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from numbers import Real
from operator import itemgetter
from typing import Any, NamedTuple

from hfwarmup.errors import UserError
from hfwarmup.schedules.decay_shapes import DECAY_SHAPES, DecayShape
from hfwarmup.schedules.options import ScheduleOptions
from hfwarmup.schedules.warmup_shapes import WARMUP_SHAPES, WarmupShape, beta2_warmup_steps

Schedule = Callable[[int], float]
"""0-based index of the update -> learning rate."""


class Levels(NamedTuple):
    """The learning rates that a curve runs between, for one peak."""

    start: float
    peak: float
    floor: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Options and lengths that go together, as `compile_curve` checks them."""

    options: ScheduleOptions
    """the options of warmup and decay"""
    warmup_steps: int
    """updates to the peak"""
    total_steps: int | None
    """updates of the run; None only for a decay that has no end"""

    @property
    def decay_steps(self) -> int:
        """Updates from the peak to the end of the run; at least 1, since shapes divide by it."""
        assert self.total_steps is not None
        return max(1, self.total_steps - self.warmup_steps)

    @property
    def first_count(self) -> int:
        """The count of the first update: 0, or 1 in the papers of noam and of the warmups of beta2."""
        return 1 if self._warmup.counts_from_one else 0

    @property
    def _warmup(self) -> WarmupShape:
        return WARMUP_SHAPES[self.options.warmup_shape]

    @property
    def _decay(self) -> DecayShape:
        return DECAY_SHAPES[self.options.decay]

    def levels(self, peak_lr: float) -> Levels:
        """Start, peak and floor of a parameter group whose own peak is `peak_lr`."""
        options = self.options
        if options.d_model is not None and peak_lr > 0.0:
            peak_lr = (options.d_model * self.warmup_steps) ** -0.5
        start = _level("initial", options.initial_lr, options.initial_ratio, peak_lr)
        floor = _level("final", options.final_lr, options.final_ratio, peak_lr)
        return Levels(min(self._warmup.default_initial_lr, peak_lr) if start is None else start, peak_lr, floor or 0.0)

    def bind(self, levels: Sequence[Levels]) -> Callable[[int], list[float]]:
        """0-based index of the update -> the learning rate of each of `levels`; O(1) in the index."""
        first_count = self.first_count
        # No paper has a decay that ends after a warmup that counts from 1. We count it from 0, like all others.
        delay = first_count if self._decay.ends else 0
        last_count = sys.maxsize if self.total_steps is None else self.total_steps + delay
        peak_count, damps = self.warmup_steps + delay, self._warmup.from_beta2
        rise, rise_blend = self._warmup.height_on(self), self._warmup.blend
        fall, fall_blend = self._decay.height_on(self), self._decay.blend
        distinct = list(dict.fromkeys(levels))
        starts, peaks, floors = ([level[end] for level in distinct] for end in range(3))
        group_count = len(levels)
        of_each = itemgetter(*map(distinct.index, levels)) if len(distinct) > 1 else None

        def learning_rates(step: int) -> list[float]:
            count = step + first_count
            if count > last_count:
                count = last_count
            if count < peak_count:
                rates = list(map(rise_blend, starts, peaks, repeat(rise(count))))
            else:
                rates = list(map(fall_blend, floors, peaks, repeat(fall(count - peak_count))))
                if damps:  # a warmup of beta2 never quite ends (Ma & Yarats 2021, section 5)
                    rates = [lr * rise(count) for lr in rates]
            return rates * group_count if of_each is None else list(of_each(rates))

        return learning_rates


def compile_curve(options: ScheduleOptions, *, warmup_steps: int | None, total_steps: int | None) -> Curve:
    """The curve of `options` over `warmup_steps` of `total_steps` updates; the warmups of beta2 set their own length.

    Raises UserError when the lengths are impossible together or with the options.
    """
    for name, value in (("num_warmup_steps", warmup_steps), ("num_training_steps", total_steps)):
        if value is not None and not _is_count(value):
            raise UserError(f"{name}={value}: give a whole number of updates, 0 or more.")
    if total_steps is None and DECAY_SHAPES[options.decay].ends:
        raise UserError(f"decay={options.decay!r} needs num_training_steps: the number of updates of the run.")
    from_beta2 = WARMUP_SHAPES[options.warmup_shape].from_beta2
    length_steps = (_beta2_length if from_beta2 else _given_length)(options, warmup_steps, total_steps)
    return Curve(
        options=options, warmup_steps=length_steps, total_steps=None if total_steps is None else int(total_steps)
    )


def _level(end: str, lr: float | None, ratio: float | None, peak_lr: float) -> float | None:
    """The learning rate at the `end` of the curve, None when it was not chosen."""
    level = lr if ratio is None else ratio * peak_lr
    if level is None or peak_lr == 0.0:  # a frozen group stays frozen
        return None
    if level > peak_lr:
        raise UserError(f"{end}_lr={level} is above the peak learning rate {peak_lr}; lower it, or give {end}_ratio.")
    return level


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf and value == int(value)


def _given_length(options: ScheduleOptions, warmup_steps: int | None, total_steps: int | None) -> int:
    shape = options.warmup_shape
    if warmup_steps is None:
        raise UserError(f"warmup_shape={shape!r} needs num_warmup_steps: the number of updates to the peak.")
    if WARMUP_SHAPES[shape].counts_from_one and warmup_steps == 0:
        raise UserError(
            f"num_warmup_steps=0: {shape}'s rate is defined by its warmup; set num_warmup_steps to 1 or more."
        )
    if total_steps is not None and warmup_steps > total_steps:
        raise UserError(
            f"num_warmup_steps={warmup_steps} > num_training_steps={total_steps}: the peak is never reached; "
            "lower num_warmup_steps (warmup_steps) or raise num_training_steps (max_steps)."
        )
    return int(warmup_steps)


def _beta2_length(options: ScheduleOptions, warmup_steps: int | None, total_steps: int | None) -> int:
    shape = options.warmup_shape
    if warmup_steps:
        raise UserError(
            f"num_warmup_steps={warmup_steps}: warmup_shape={shape!r} takes its length from beta2; "
            "leave num_warmup_steps (warmup_steps) at 0."
        )
    if options.beta2 is None:
        raise UserError(f"warmup_shape={shape!r} needs beta2: the second beta of Adam, for example 0.999.")
    length_steps = beta2_warmup_steps(options.beta2)
    if total_steps is not None and length_steps > total_steps:
        raise UserError(
            f"warmup_shape={shape!r} takes 2 / (1 - beta2) = {length_steps} updates at beta2={options.beta2}, more "
            f"than num_training_steps={total_steps}; lower beta2, raise num_training_steps (max_steps), or choose a "
            "shape that takes num_warmup_steps."
        )
    return length_steps
