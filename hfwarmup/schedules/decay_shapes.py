"""The shapes of decays. A new one is one entry of DECAY_SHAPES.

A height is 1 at the peak and 0 at the floor, n = `steps` updates after the peak. With L = `decay_steps`, the updates
from the peak to the end of the run, a shape that asks for L or for the run's length ends at n = L.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfwarmup.errors import UserError
from hfwarmup.schedules.shapes import Shape, floored, geometric

if TYPE_CHECKING:
    from hfwarmup.schedules.options import ScheduleOptions

FLOOR = frozenset({"final_lr", "final_ratio"})
"""The options that set where a decay stops."""


@dataclass(frozen=True, kw_only=True)
class DecayShape(Shape):
    """A shape after the peak, blended between floor and peak."""

    reads: frozenset[str] = FLOOR

    @property
    def ends(self) -> bool:
        """Whether it ends with the run, and so needs the run's length."""
        return not self.asks_for.isdisjoint({"decay_steps", "total_steps"})


def constant(_steps: int) -> float:
    """No decay: height = 1.

    >>> constant(70)
    1.0
    """
    return 1.0


def linear(steps: int, decay_steps: int) -> float:
    """height = (L - n) / L, which rounds as transformers' own schedule does; 1 - n / L does not.

    >>> linear(25, decay_steps=100)
    0.75
    """
    return (decay_steps - steps) / decay_steps


def cosine(steps: int, decay_steps: int) -> float:
    """height = (1 + cos(pi n / L)) / 2 (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one cycle).

    >>> cosine(50, decay_steps=100)
    0.5
    """
    return 0.5 * (1.0 + math.cos(math.pi * (steps / decay_steps)))


def polynomial(steps: int, decay_steps: int, power: float) -> float:
    """height = (1 - n / L) ** power; power 1 is linear, above 1 ends more gently.

    >>> polynomial(50, decay_steps=100, power=2)
    0.25
    """
    return (1.0 - steps / decay_steps) ** power


def one_minus_sqrt(steps: int, decay_steps: int) -> float:
    """The cooldown that Hägele et al. 2024 (arXiv:2405.18392, section 3) found best: height = 1 - sqrt(n / L).

    >>> one_minus_sqrt(25, decay_steps=100)
    0.5
    """
    return 1.0 - math.sqrt(steps / decay_steps)


def restarts(steps: int, decay_steps: int, num_cycles: int) -> float:
    """Cosine with hard restarts: height = (1 + cos(pi (c mod 1))) / 2, c = num_cycles n / L (same, eq. 5).

    It is 0 at the end of the last cycle. The remainder is taken in whole numbers, so that a restart is exactly at 1.

    >>> [round(restarts(n, decay_steps=100, num_cycles=2), 3) for n in (0, 25, 49, 50, 100)]
    [1.0, 0.5, 0.001, 1.0, 0.0]
    """
    if steps >= decay_steps:
        return 0.0
    return cosine(steps * num_cycles % decay_steps, decay_steps)


def inverse_sqrt(steps: int, warmup_steps: int) -> float:
    """height = sqrt(s / (s + n)), s = max(1, T_w) (Vaswani et al. 2017, eq. 3).

    >>> inverse_sqrt(300, warmup_steps=100)
    0.5
    """
    timescale_steps = max(1, warmup_steps)
    return math.sqrt(timescale_steps / (timescale_steps + steps))


def staircase(steps: int, step_size: int, gamma: float) -> float:
    """height = gamma ** floor(n / step_size).

    >>> staircase(25, step_size=10, gamma=0.5)
    0.25
    """
    return gamma ** (steps // step_size)


COOLDOWN_SHAPES = {"linear": linear, "cosine": cosine, "1-sqrt": one_minus_sqrt}
"""Every value of the option `cooldown_shape`: the last part of wsd."""


def wsd(steps: int, warmup_steps: int, total_steps: int, stable_ratio: float, cooldown_shape: str) -> float:
    """Warmup, stable, decay: height = 1 up to `stable_ratio` of the run, then a cooldown to its end.

    >>> [wsd(n, 10, 100, stable_ratio=0.9, cooldown_shape="linear") for n in (0, 80, 85, 90)]
    [1.0, 1.0, 0.5, 0.0]
    """
    begin = round(stable_ratio * total_steps)
    if stable_ratio < 1.0:
        begin = max(0, min(begin, total_steps - 1))  # the shortest run has a cooldown too
    if warmup_steps == total_steps:
        begin = total_steps  # the warmup fills the run: no decay, as with every other shape
    if begin < warmup_steps:
        raise UserError(
            f"stable_ratio={stable_ratio} ends the stable phase at update {begin}, before "
            f"num_warmup_steps={warmup_steps}; raise stable_ratio or lower num_warmup_steps (warmup_steps)."
        )
    return COOLDOWN_SHAPES[cooldown_shape](max(0, steps + warmup_steps - begin), max(1, total_steps - begin))


def _check_exponential(options: ScheduleOptions) -> None:
    if not (options.final_lr or options.final_ratio):
        raise UserError("decay='exponential' never reaches 0; set final_lr or final_ratio above 0.")


def _check_step(options: ScheduleOptions) -> None:
    if options.step_size is None:
        raise UserError("decay='step' needs step_size: the updates between two steps.")


DECAY_SHAPES: dict[str, DecayShape] = {
    "constant": DecayShape(height=constant, reads=frozenset()),
    "linear": DecayShape(height=linear),
    "cosine": DecayShape(height=cosine),
    "polynomial": DecayShape(height=polynomial),
    "exponential": DecayShape(height=linear, blend=geometric, check=_check_exponential),
    "inverse_sqrt": DecayShape(height=inverse_sqrt, blend=floored),
    "step": DecayShape(height=staircase, blend=floored, check=_check_step),
    "wsd": DecayShape(height=wsd),
    "restarts": DecayShape(height=restarts),
    # Flat as a curve: torch's ReduceLROnPlateau takes over at the peak, see hfwarmup.optim.handover.
    "plateau": DecayShape(
        height=constant,
        reads=frozenset({"metric", "mode", "factor", "patience", "threshold", "cooldown", "min_lr"}),
    ),
}
"""Every value of the option `decay`."""
