"""What a shape of a warmup or a decay is, and how its heights become learning rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hfwarmup.schedules.curve import Curve
    from hfwarmup.schedules.options import ScheduleOptions

LENGTHS = frozenset({"warmup_steps", "decay_steps", "total_steps"})
"""The lengths of a `Curve` that a shape may ask for."""

Blend = Callable[[float, float, float], float]
"""(low level, peak, height in [0, 1]) -> learning rate; height 0 is the low level, height 1 the peak."""


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


def from_zero(_low: float, peak: float, height: float) -> float:
    """peak h, for warmups that count from 1: their height 0 lies before the first update.

    >>> from_zero(1e-7, 1.0, 0.25)
    0.25
    """
    return peak * height


@dataclass(frozen=True, kw_only=True)
class Shape:
    """All that the package knows of one shape."""

    height: Callable[..., float]
    """a pure function: a count of updates, and by name the lengths and options that it asks for -> height in [0, 1]"""
    reads: frozenset[str]
    """the options that it reads beside those of `height`"""
    blend: Blend = arithmetic
    """how a height becomes a learning rate"""
    check: Callable[[ScheduleOptions], None] = lambda _: None
    """raises UserError for options that it cannot take"""

    @property
    def asks_for(self) -> frozenset[str]:
        """The lengths and options that `height` takes by name."""
        _count, *names = signature(self.height).parameters
        return frozenset(names)

    @property
    def options(self) -> frozenset[str]:
        """Every option that it reads."""
        return self.reads | self.asks_for - LENGTHS

    def on(self, curve: Curve) -> Callable[[int], float]:
        """The count of updates -> height, with the lengths and options of a curve."""
        values = {name: getattr(curve if name in LENGTHS else curve.options, name) for name in self.asks_for}
        return partial(self.height, **values)
