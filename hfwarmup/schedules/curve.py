"""Options and lengths compiled to a curve: which shape an update is on, how high, and between which learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

from hfwarmup.errors import UserError
from hfwarmup.schedules import shapes
from hfwarmup.schedules.options import BETA2_WARMUPS, DEFAULT_INITIAL_LR, ENDLESS_DECAYS, ScheduleOptions

Schedule = Callable[[int], float]
"""0-based index of the update -> learning rate."""


class Levels(NamedTuple):
    """The learning rates that a curve runs between, for one peak."""

    start: float
    peak: float
    floor: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A schedule without its peak.

    `rise` and `fall` map a count of updates to a height in [0, 1], the blends lay the height between two learning
    rates. The count of update t is t + `first_count`, held at `last_count`.
    """

    options: ScheduleOptions
    warmup_steps: int
    first_count: int
    last_count: float
    rise: Callable[[int], float]
    fall: Callable[[int], float]
    rise_blend: shapes.Blend
    fall_blend: shapes.Blend

    def levels(self, peak_lr: float) -> Levels:
        """Start, peak and floor of a parameter group whose own peak is `peak_lr`."""
        options = self.options
        if options.d_model is not None and peak_lr > 0.0:
            peak_lr = (options.d_model * self.warmup_steps) ** -0.5
        start = _level("initial", options.initial_lr, options.initial_ratio, peak_lr)
        if start is None:
            start = 0.0 if options.warmup == "linear" else min(DEFAULT_INITIAL_LR, peak_lr)
        floor = _level("final", options.final_lr, options.final_ratio, peak_lr)
        return Levels(start, peak_lr, floor or 0.0)

    def bind(self, levels: Sequence[Levels]) -> Callable[[int], list[float]]:
        """The learning rates of all `levels` at an update, as a function of its 0-based index; O(1) in the index."""
        first_count, last_count, warmup_steps = self.first_count, self.last_count, self.warmup_steps
        rise, fall, rise_blend, fall_blend = self.rise, self.fall, self.rise_blend, self.fall_blend
        if len(levels) == 1:  # nearly every run; without the list it costs a third less
            start, peak, floor = levels[0]

            def learning_rates(step: int) -> list[float]:
                count = step + first_count
                if count > last_count:
                    count = last_count  # type: ignore[assignment]  # an int wherever it is reached
                if count < warmup_steps:
                    return [rise_blend(start, peak, rise(count))]
                return [fall_blend(floor, peak, fall(count))]
        else:

            def learning_rates(step: int) -> list[float]:
                count = step + first_count
                if count > last_count:
                    count = last_count  # type: ignore[assignment]
                if count < warmup_steps:
                    height = rise(count)
                    return [rise_blend(start, peak, height) for start, peak, _ in levels]
                height = fall(count)
                return [fall_blend(floor, peak, height) for _, peak, floor in levels]

        return self._damp(learning_rates) if self.options.warmup in BETA2_WARMUPS else learning_rates

    def _damp(self, learning_rates: Callable[[int], list[float]]) -> Callable[[int], list[float]]:
        """A ramp of beta2 never quite ends: it damps whatever comes after it too (Ma & Yarats 2021, section 5)."""

        def damped(step: int) -> list[float]:
            count, rates = min(step + self.first_count, self.last_count), learning_rates(step)
            if count < self.warmup_steps:
                return rates
            height = self.rise(int(count))
            return [lr * height for lr in rates]

        return damped


def compile_curve(options: ScheduleOptions, *, warmup_steps: int | None, total_steps: int | None) -> Curve:
    """The curve of `options` over `warmup_steps` of `total_steps` updates.

    Raises ValueError when the lengths are impossible together or with the options.
    """
    warmup_steps = _check_lengths(options, warmup_steps, total_steps)
    # Vaswani et al. and Ma & Yarats count updates from 1, everybody else here from 0.
    first_count = 1 if options.warmup == "noam" or options.warmup in BETA2_WARMUPS else 0
    last_count: float = math.inf if total_steps is None else total_steps
    rise = _rise(options, warmup_steps)
    fall = _fall(options, warmup_steps, total_steps)
    if first_count and options.decay not in ENDLESS_DECAYS:
        # A decay that ends is nobody's paper's: counted from 0 it ends at T, behind the last update, as all others do.
        last_count, fall = last_count + first_count, _counted_from_zero(fall, warmup_steps)
    return Curve(
        options=options,
        warmup_steps=warmup_steps,
        first_count=first_count,
        last_count=last_count,
        rise=rise,
        fall=fall,
        rise_blend=_RISE_BLENDS.get(options.warmup, shapes.arithmetic),
        fall_blend=_FALL_BLENDS.get(options.decay, shapes.arithmetic),
    )


_RISE_BLENDS: dict[str, shapes.Blend] = {
    "exponential": shapes.geometric,
    "noam": shapes.from_zero,
    **dict.fromkeys(BETA2_WARMUPS, shapes.from_zero),
}
_FALL_BLENDS: dict[str, shapes.Blend] = {
    "exponential": shapes.geometric,
    "inverse_sqrt": shapes.floored,
    "step": shapes.floored,
}
_RISES: dict[str, Callable[[float], float]] = {
    "linear": shapes.linear,
    "gradual": shapes.linear,
    "noam": shapes.linear,
    "exponential": shapes.linear,
    "cosine": shapes.cosine,
    "constant": shapes.hold,
}
_BETA2_RISES: dict[str, Callable[..., float]] = {
    "untuned_linear": shapes.untuned_linear,
    "untuned_exponential": shapes.untuned_exponential,
    "radam": shapes.radam,
    "gi": shapes.gi,
}
_FALLS: dict[str, Callable[[float], float]] = {
    "constant": shapes.constant,
    "plateau": shapes.constant,
    "linear": shapes.linear_fall,
    "exponential": shapes.linear_fall,
    "cosine": shapes.cosine_fall,
    "1-sqrt": shapes.one_minus_sqrt,
}


def _rise(options: ScheduleOptions, warmup_steps: int) -> Callable[[int], float]:
    """Count of updates -> height during the warmup."""
    if options.warmup in BETA2_WARMUPS:
        assert options.beta2 is not None
        return partial(_BETA2_RISES[options.warmup], beta2=options.beta2)
    if options.warmup == "saturating":
        constants = warmup_steps / options.tau if options.tau else 5.0
        shape: Callable[[float], float] = partial(shapes.saturating, time_constants=constants)
    elif options.warmup == "polynomial":
        shape = partial(shapes.polynomial, power=options.power)
    else:
        shape = _RISES[options.warmup]
    return lambda count: shape(count / warmup_steps)


def _fall(options: ScheduleOptions, warmup_steps: int, total_steps: int | None) -> Callable[[int], float]:
    """Count of updates -> height after the warmup."""
    if options.decay == "inverse_sqrt":
        timescale = max(1, warmup_steps)
        return lambda count: shapes.inverse_sqrt(count - warmup_steps, timescale)
    if options.decay == "step":
        assert options.step_size is not None
        step_size, gamma = options.step_size, options.gamma
        return lambda count: shapes.staircase(count - warmup_steps, step_size, gamma)
    if options.decay in ENDLESS_DECAYS:
        return _FALLS[options.decay]
    assert total_steps is not None
    begin_steps = warmup_steps
    if options.decay == "restarts":
        length_steps, num_cycles = total_steps - warmup_steps, options.num_cycles
        return lambda count: shapes.restarts(count - warmup_steps, length_steps, num_cycles) if length_steps else 1.0
    if options.decay == "wsd":
        begin_steps = _cooldown_begin(options, warmup_steps, total_steps)
        shape = _FALLS[options.cooldown_shape]
    elif options.decay == "polynomial":
        shape = partial(_polynomial_fall, power=options.power)
    else:
        shape = _FALLS[options.decay]
    return _spread(shape, begin_steps, total_steps)


def _counted_from_zero(fall: Callable[[int], float], warmup_steps: int) -> Callable[[int], float]:
    """A fall over updates counted from 0 -> the same counted from 1: the peak stays for one update more."""
    return lambda count: fall(max(warmup_steps, count - 1))


def _spread(shape: Callable[[float], float], begin_steps: int, total_steps: int) -> Callable[[int], float]:
    """A fall over its progress -> the same over updates: height 1 up to `begin_steps`, the end at `total_steps`."""
    length = total_steps - begin_steps
    if length == 0:
        return lambda _: 1.0
    if shape is shapes.linear_fall:
        # (T - t) / length rounds as transformers' own schedule does, 1 - (t - T_w) / length does not.
        return lambda count: 1.0 if count <= begin_steps else (total_steps - count) / length
    return lambda count: 1.0 if count <= begin_steps else shape((count - begin_steps) / length)


def _polynomial_fall(progress: float, power: float) -> float:
    return shapes.polynomial(1.0 - progress, power)


def _cooldown_begin(options: ScheduleOptions, warmup_steps: int, total_steps: int) -> int:
    begin_steps = round(options.stable_ratio * total_steps)
    if warmup_steps == total_steps:
        return total_steps  # the warmup fills the run: no decay, as with every other shape
    if options.stable_ratio < 1.0:
        begin_steps = max(0, min(begin_steps, total_steps - 1))  # the shortest run has a cooldown too
    if begin_steps < warmup_steps:
        raise UserError(
            f"stable_ratio={options.stable_ratio} ends the stable phase at update {begin_steps}, before "
            f"num_warmup_steps={warmup_steps}; raise stable_ratio or lower num_warmup_steps (warmup_steps)."
        )
    return begin_steps


def _level(end: str, lr: float | None, ratio: float | None, peak_lr: float) -> float | None:
    """The learning rate at the `end` of the curve, None when it was not chosen."""
    level = lr if ratio is None else ratio * peak_lr
    if level is None or peak_lr == 0.0:  # a frozen group stays frozen
        return None
    if level > peak_lr:
        raise UserError(f"{end}_lr={level} is above the peak learning rate {peak_lr}; lower it, or give {end}_ratio.")
    return level


def _check_lengths(options: ScheduleOptions, warmup_steps: int | None, total_steps: int | None) -> int:
    """The warmup's length in updates, checked; for the warmups of beta2 it is ceil(2 / (1 - beta2))."""
    for name, value in (("num_warmup_steps", warmup_steps), ("num_training_steps", total_steps)):
        if value is not None and not _is_count(value):
            raise UserError(f"{name}={value}: give a whole number of updates, 0 or more.")
    if options.warmup in BETA2_WARMUPS:
        return _checked_beta2_steps(options, warmup_steps, total_steps)
    if warmup_steps is None:
        raise UserError(f"warmup={options.warmup!r} needs num_warmup_steps: the number of updates to the peak.")
    if options.warmup == "noam" and warmup_steps == 0:
        raise UserError("num_warmup_steps=0: noam's rate is defined by its warmup; set num_warmup_steps to 1 or more.")
    if total_steps is None and options.decay not in ENDLESS_DECAYS:
        raise UserError(f"decay={options.decay!r} needs num_training_steps: the number of updates of the run.")
    if total_steps is not None and warmup_steps > total_steps:
        raise UserError(
            f"num_warmup_steps={warmup_steps} > num_training_steps={total_steps}: the peak is never reached; "
            "lower num_warmup_steps (warmup_steps) or raise num_training_steps (max_steps)."
        )
    return int(warmup_steps)


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf and value == int(value)


def _checked_beta2_steps(options: ScheduleOptions, warmup_steps: int | None, total_steps: int | None) -> int:
    if warmup_steps:
        raise UserError(
            f"num_warmup_steps={warmup_steps}: warmup={options.warmup!r} takes its length from beta2; "
            "leave num_warmup_steps (warmup_steps) at 0."
        )
    if options.beta2 is None:
        raise UserError(f"warmup={options.warmup!r} needs beta2: the second beta of Adam, for example 0.999.")
    derived_steps = beta2_warmup_steps(options.beta2)
    if total_steps is not None and derived_steps > total_steps:
        raise UserError(
            f"warmup={options.warmup!r} takes 2 / (1 - beta2) = {derived_steps} updates at beta2={options.beta2}, more "
            f"than num_training_steps={total_steps}; lower beta2, raise num_training_steps (max_steps), or choose a "
            "warmup with num_warmup_steps."
        )
    return derived_steps


def beta2_warmup_steps(beta2: float) -> int:
    """Updates of the warmups of beta2: ceil(2 / (1 - beta2)) (Ma & Yarats 2021, arXiv:1910.04209, eq. 11).

    >>> beta2_warmup_steps(0.999)
    2000
    """
    return math.ceil(2.0 / (1.0 - beta2) - 1e-6)
