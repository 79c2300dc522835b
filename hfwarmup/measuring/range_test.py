"""Smith's learning-rate range test: train for a few updates while the learning rate climbs, and watch the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hfwarmup.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """The loss under a climbing learning rate."""

    points: tuple[tuple[float, float], ...]
    """(learning rate of an update, smoothed loss before it)"""
    steepest: float
    """learning rate after which the smoothed loss falls most; nan when it never falls"""
    lowest: float
    """learning rate at which the smoothed loss is lowest; nan when it never falls"""
    open_below: bool
    """whether `steepest` is the first learning rate that could be it: the fall may begin below the range"""
    open_above: bool
    """whether `lowest` is the last learning rate of the range: above it the loss may fall further"""


def lr_range_test(
    update_at: Callable[[float], float],
    *,
    low: float,
    high: float,
    updates: int,
    smoothing: float = 0.9,
    stop_factor: float = 4.0,
) -> RangeTest:
    """Run `updates` updates at learning rates that climb geometrically from `low` to `high`.

    The loss is smoothed by an exponential mean with `smoothing` and bias correction. The test ends early when this mean
    is not finite, or when it is above both its first value and lowest + (stop_factor - 1) |lowest|: for a positive loss
    that is `stop_factor` times its lowest value. Peaks to try lie between `steepest` and `lowest`, unless these are the
    ends of the range.

    A fall is measured over 1 / (1 - smoothing) updates, at most over a quarter of the test. It is measured from
    the update at which the mean holds that many values; before that, the noise of single batches moves the mean.

    Args:
        update_at: makes one update at a learning rate and returns the loss of its batch before the update.
        low: first learning rate.
        high: last learning rate.
        updates: how many, 3 or more.

    Raises:
        UserError: unless 0 < low < high and updates is 3 or more.

    Source: Smith 2017, arXiv:1506.01186, section 3.3, with geometric steps.

    >>> x = [1.0]
    >>> def update_at(lr):  # gradient descent on x'7x/2
    ...     loss = 3.5 * x[0] ** 2
    ...     x[0] -= lr * 7 * x[0]
    ...     return loss
    >>> found = lr_range_test(update_at, low=1e-4, high=10, updates=60, smoothing=0)
    >>> found.steepest < found.lowest, f"{found.lowest:.3f} above {2 / 7:.3f}, where it begins to rise"
    (True, '0.298 above 0.286, where it begins to rise')
    """
    if not 0.0 < low < high < math.inf:
        raise UserError(f"low={low}, high={high}: give finite learning rates with 0 < low < high.")
    if updates < 3:
        raise UserError(f"updates={updates}: give 3 or more.")
    points: list[tuple[float, float]] = []
    mean, lowest, limit = 0.0, math.inf, math.inf
    for update in range(updates):
        lr = low * (high / low) ** (update / (updates - 1))
        mean = smoothing * mean + (1 - smoothing) * update_at(lr)
        loss = mean / (1 - smoothing ** (update + 1))
        if not math.isfinite(loss) or loss > limit:
            break
        points.append((lr, loss))
        lowest = min(lowest, loss)
        limit = max(points[0][1], lowest + (stop_factor - 1) * abs(lowest))
    return _judged(points, span=max(1, min(round(1 / (1 - smoothing)), len(points) // 4)), updates=updates)


def _judged(points: list[tuple[float, float]], *, span: int, updates: int) -> RangeTest:
    steady = points[span - 1 :]
    falls = [(after - before, lr) for (lr, before), (_, after) in zip(steady, steady[span:], strict=False)]
    fall, steepest = min(falls, default=(0.0, math.nan))
    loss, lowest = min(((loss, lr) for lr, loss in steady), default=(math.inf, math.nan))
    return RangeTest(
        points=tuple(points),
        steepest=steepest if fall < 0.0 else math.nan,
        lowest=lowest if steady and loss < steady[0][1] else math.nan,
        open_below=fall < 0.0 and steepest == steady[0][0],
        open_above=len(points) == updates and lowest == points[-1][0] != steady[0][0],
    )
