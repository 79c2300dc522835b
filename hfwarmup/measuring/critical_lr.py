"""The critical learning rate: the smallest step along a direction that does not lower the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hfwarmup.errors import UserError

COLD_FORWARDS, WARM_FORWARDS = 12, 6
"""Forward passes that a search may take: without, and with an earlier result to start from."""


@dataclass(frozen=True, kw_only=True)
class CriticalLr:
    """What a search along one direction has found. Learning rates are steps along it."""

    lr: float
    """eta_c, the geometric middle of the bracket; 0 where no step lowered the loss, inf where every one did"""
    lower: float
    """largest step up to which the loss fell; 0 where it never did"""
    upper: float
    """smallest step above it at which the loss did not fall; inf where it always did"""
    points: tuple[tuple[float, float], ...]
    """(step, loss) in the order of evaluation; the first is (0, loss at the weights)"""

    @property
    def forwards(self) -> int:
        """Forward passes that the search took."""
        return len(self.points)

    @property
    def found(self) -> bool:
        """Whether the search saw the loss both fall and rise."""
        return 0.0 < self.lr < math.inf


def critical_lr(
    loss_at: Callable[[float], float],
    *,
    start: float,
    upper: float,
    warm: bool = False,
    relative_width: float = 1 / 16,
) -> CriticalLr:
    """eta_c = min {eta > 0: L(theta - eta d) >= L(theta)}, by exponential search and bisection of its logarithm.

    From `start` the search goes up or down by a factor that is squared at each step (2, 4, 16, …; warm 1.25, 1.56, …).
    Then it bisects until 1 - lower / upper <= `relative_width`, or until it has used 12 forward passes, 6 if `warm`. It
    assumes that along the direction the loss first falls and then rises, once. A loss that is not finite counts as
    risen.

    Args:
        loss_at: step eta -> loss at theta - eta d, on one batch, without noise (dropout off).
        start: first step to try: the peak learning rate, or an earlier eta_c. It must be large enough to move the loss.
        upper: largest step to try.
        warm: whether `start` is the eta_c of an earlier search.
        relative_width: relative width of the bracket at which the search stops.

    Raises:
        UserError: `start` or `upper` is not above 0 and finite.

    Source: Kalra & Barkeshli 2024, arXiv:2406.09405, algorithms 1 and 2; the definition as in Kalra et al. 2026,
    arXiv:2601.16979, where 2 / eta_c is the critical sharpness.

    >>> found = critical_lr(lambda lr: (1 - 7 * lr) ** 2, start=1.0, upper=10.0)  # x'7x/2 from 1: eta_c = 2 / 7
    >>> found.lower < 2 / 7 < found.upper, f"{found.lr:.3f}", found.forwards
    (True, '0.291', 9)
    """
    for name, value in (("start", start), ("upper", upper)):
        if not 0.0 < value < math.inf:
            raise UserError(f"{name}={value}: give a finite learning rate above 0.")
    points = [(0.0, loss_at(0.0))]
    low, high, lr = 0.0, math.inf, min(start, upper)
    factor, max_forwards = (1.25, WARM_FORWARDS) if warm else (2.0, COLD_FORWARDS)
    while len(points) < max_forwards and low < upper and 1 - low / high > relative_width:
        points.append((lr, loss_at(lr)))
        if points[-1][1] < points[0][1]:
            low = lr
        else:
            high = lr
        if high == math.inf:
            lr, factor = min(low * factor, upper), factor * factor
        elif low == 0.0:
            lr, factor = high / factor, factor * factor
        else:
            lr = math.sqrt(low * high)
    middle = math.sqrt(low * high) if low > 0.0 else 0.0
    return CriticalLr(lr=middle, lower=low, upper=high, points=tuple(points))


def saved_steps(critical: CriticalLr, *, peak_lr: float, warmup_steps: int) -> float:
    """T_save = T_w min(1, eta_c / eta) - forwards / 2: updates that a warmup from eta_c saves over one from 0.

    The ramp keeps its rate of eta / T_w an update, so it needs T_w (1 - eta_c / eta) updates. The cost of the search is
    subtracted: an update costs about two forward passes (Kalra & Barkeshli 2024, section 6.1).

    >>> found = CriticalLr(lr=1e-4, lower=9e-5, upper=1.1e-4, points=((0.0, 1.0),) * 10)
    >>> saved_steps(found, peak_lr=1e-3, warmup_steps=1000)
    95.0
    """
    share = min(1.0, critical.lr / peak_lr) if peak_lr > 0.0 else 0.0
    return warmup_steps * share - critical.forwards / 2
