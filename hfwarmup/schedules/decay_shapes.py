"""The shapes of decays. A new one is one entry of DECAY_SHAPES.

Each function makes a height from its parameters, which are options and lengths in updates. The height is 1 (the peak)
at n = 0. Most shapes are 0 (the floor) at n = L, where L = `decay_steps` is the updates from the peak to the run's end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfwarmup.errors import UserError
from hfwarmup.schedules.shapes import Blend, Height, Shape, arithmetic, floored, geometric

if TYPE_CHECKING:
    from hfwarmup.schedules.options import ScheduleOptions

FLOOR = frozenset({"final_lr", "final_ratio"})
"""The options that set where a decay stops."""


@dataclass(frozen=True, kw_only=True)
class DecayShape(Shape):
    """A shape after the peak, blended between floor and peak."""

    reads: frozenset[str] = FLOOR
    blend: Blend = arithmetic

    @property
    def ends(self) -> bool:
        """Whether it ends with the run, and so needs the run's length."""
        return not self.parameters.isdisjoint({"decay_steps", "total_steps"})


def constant() -> Height:
    """No decay: height = 1.

    >>> constant()(70)
    1.0
    """
    return lambda _: 1.0


def linear(decay_steps: int) -> Height:
    """height = (L - n) / L, which rounds as transformers' own schedule does; 1 - n / L does not.

    >>> linear(decay_steps=100)(25)
    0.75
    """
    return lambda n: (decay_steps - n) / decay_steps


def cosine(decay_steps: int) -> Height:
    """height = (1 + cos(pi n / L)) / 2 (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one cycle).

    >>> cosine(decay_steps=100)(50)
    0.5
    """
    return lambda n: 0.5 * (1.0 + math.cos(math.pi * (n / decay_steps)))


def polynomial(decay_steps: int, power: float) -> Height:
    """height = (1 - n / L) ** power; power 1 is linear, above 1 ends more gently.

    >>> polynomial(decay_steps=100, power=2)(50)
    0.25
    """
    return lambda n: (1.0 - n / decay_steps) ** power


def inverse_sqrt(warmup_steps: int) -> Height:
    """height = sqrt(s / (s + n)) with s = max(1, T_w) (Vaswani et al. 2017, arXiv:1706.03762, eq. 3).

    >>> inverse_sqrt(warmup_steps=100)(300)
    0.5
    """
    timescale_steps = max(1, warmup_steps)
    return lambda n: math.sqrt(timescale_steps / (timescale_steps + n))


def staircase(step_size: int, gamma: float) -> Height:
    """height = gamma ** floor(n / step_size).

    >>> staircase(step_size=10, gamma=0.5)(25)
    0.25
    """
    return lambda n: gamma ** (n // step_size)


def one_minus_sqrt(decay_steps: int) -> Height:
    """The cooldown that Hägele et al. 2024 (arXiv:2405.18392, section 3) found best: height = 1 - sqrt(n / L).

    >>> one_minus_sqrt(decay_steps=100)(25)
    0.5
    """
    return lambda n: 1.0 - math.sqrt(n / decay_steps)


COOLDOWN_SHAPES = {"linear": linear, "cosine": cosine, "1-sqrt": one_minus_sqrt}
"""Every value of the option `cooldown_shape`: the last part of wsd."""


def wsd(warmup_steps: int, total_steps: int, stable_ratio: float, cooldown_shape: str) -> Height:
    """Warmup, stable, decay: height = 1 up to `stable_ratio` of the run, then the cooldown to its end.

    >>> list(map(wsd(10, 100, stable_ratio=0.9, cooldown_shape="linear"), (0, 80, 85, 90)))
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
    cooldown, stable_steps = COOLDOWN_SHAPES[cooldown_shape](max(1, total_steps - begin)), begin - warmup_steps
    return lambda n: cooldown(max(0, n - stable_steps))


def restarts(decay_steps: int, num_cycles: int) -> Height:
    """Cosine with hard restarts: height = (1 + cos(pi (c mod 1))) / 2, c = num_cycles n / L (as cosine, eq. 5).

    It is 0 at the end of the last cycle. The remainder is taken in whole numbers, so that a restart is exactly at 1.

    >>> [round(restarts(decay_steps=100, num_cycles=2)(n), 3) for n in (0, 25, 49, 50, 100)]
    [1.0, 0.5, 0.001, 1.0, 0.0]
    """
    cycle = cosine(decay_steps)
    return lambda n: cycle(n * num_cycles % decay_steps) if n < decay_steps else 0.0


def _check_exponential(options: ScheduleOptions) -> None:
    if not (options.final_lr or options.final_ratio):
        raise UserError("decay='exponential' never reaches 0; set final_lr or final_ratio above 0.")


def _check_step(options: ScheduleOptions) -> None:
    if options.step_size is None:
        raise UserError("decay='step' needs step_size: the updates between two steps.")


DECAY_SHAPES: dict[str, DecayShape] = {
    "constant": DecayShape(make=constant, reads=frozenset()),
    "linear": DecayShape(make=linear),
    "cosine": DecayShape(make=cosine),
    "polynomial": DecayShape(make=polynomial),
    "exponential": DecayShape(make=linear, blend=geometric, check=_check_exponential),
    "inverse_sqrt": DecayShape(make=inverse_sqrt, blend=floored),
    "step": DecayShape(make=staircase, blend=floored, check=_check_step),
    "wsd": DecayShape(make=wsd),
    "restarts": DecayShape(make=restarts),
    # Flat as a curve: torch's ReduceLROnPlateau takes over at the peak, see hfwarmup.optim.handover.
    "plateau": DecayShape(
        make=constant,
        reads=frozenset({"metric", "mode", "factor", "patience", "threshold", "cooldown", "min_lr"}),
    ),
}
"""Every value of the option `decay`."""
