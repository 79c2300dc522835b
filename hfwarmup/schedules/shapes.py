"""What a shape of a warmup or a decay is, and how its heights become learning rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfwarmup.schedules.curve import Curve
    from hfwarmup.schedules.options import ScheduleOptions

Height = Callable[[int], float]
"""count of updates -> height in [0, 1]; 0 is the start or the floor, 1 the peak."""
Blend = Callable[[float, float, float], float]
"""(low level, peak, height) -> learning rate; height 0 is the low level, height 1 the peak."""
LENGTHS = frozenset({"warmup_steps", "decay_steps", "total_steps"})
"""The lengths of a `Curve`, in updates."""


def _accept(_options: ScheduleOptions) -> None:
    """The check of a shape that takes whatever it reads."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """All that the package knows of one shape."""

    make: Callable[..., Height]
    """lengths and options, by their names -> height; a shape reads what this function has as parameters"""
    reads: frozenset[str]
    """the options that it reads besides"""
    blend: Blend
    """how a height becomes a learning rate"""
    check: Callable[[ScheduleOptions], None] = _accept
    """raises UserError for options that it cannot take"""

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The lengths and options that `make` takes."""
        return frozenset(signature(self.make).parameters)

    @property
    def options(self) -> frozenset[str]:
        """Every option that the shape reads."""
        return self.reads | self.parameters - LENGTHS

    def height_on(self, curve: Curve) -> Height:
        """The shape with the lengths and options of a curve."""
        owners = {name: curve if name in LENGTHS else curve.options for name in self.parameters}
        return self.make(**{name: getattr(owner, name) for name, owner in owners.items()})


def arithmetic(low: float, peak: float, height: float) -> float:
    """low (1 - h) + peak h: exact at both ends, and never above the peak, whatever the rounding.

    >>> arithmetic(1e-7, 2.0, 0.5)
    1.00000005
    """
    lr = low * (1.0 - height) + peak * height
    return lr if lr < peak else peak


def geometric(low: float, peak: float, height: float) -> float:
    """low^(1 - h) peak^h: equal factors in equal times. `low` must be above 0 (or the peak be 0).

    >>> round(geometric(1e-4, 1e-2, 0.5), 6)
    0.001
    """
    lr = low ** (1.0 - height) * peak**height
    return lr if lr < peak else peak


def floored(low: float, peak: float, height: float) -> float:
    """max(low, peak h): the decay keeps its form until it meets the floor.

    >>> floored(0.3, 1.0, 0.25)
    0.3
    """
    return max(low, peak * height)
