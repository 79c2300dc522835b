"""Spikes of a loss: where they are, and whether training recovered. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import Literal

MAD_TO_SIGMA = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""
MIN_HISTORY = 5
"""Values before one that are needed to call it a spike."""
MIN_SIGMA = 0.01
"""Lower limit of the spread of the log loss, 1%; without it, a flat history would make every step a spike."""


def robust_z_scores(values: Sequence[float], *, window: int = 100) -> list[float]:
    """How many robust standard deviations each value is above its recent past.

    z = (log v - median) / (1.4826 MAD) of the logarithms of up to `window` values before it, less their trend: the
    history is first brought to the present by the median of its steps. NaN with fewer than 5 values before, inf for a
    value that is not finite. The logarithm and the median keep a falling loss and an earlier spike from hiding one.

    >>> [round(z, 1) for z in robust_z_scores([4.0, 3.9, 3.8, 3.7, 3.6, 3.5, 7.0])[-2:]]
    [-0.3, 71.8]
    """
    logs = [math.log(value) if 0 < value < math.inf else math.inf for value in values]
    return [_z_score(logs[max(0, index - window) : index], value) for index, value in enumerate(logs)]


def find_spikes(values: Sequence[float], *, window: int = 100, threshold: float = 8.0) -> list[int]:
    """Indices whose robust z-score reaches `threshold`; only the highest one of neighbours.

    >>> find_spikes([4.0, 3.9, 3.8, 3.7, 3.6, 3.5, 7.0, 9.0, 6.0, 3.4])
    [7]
    """
    return [_top(values, rise) for rise in _rises(values, window, threshold)]


def spike_score(values: Sequence[float], *, window: int = 1000, sigmas: float = 7.0) -> float:
    """The share of values that lie `sigmas` standard deviations or more from the mean of the `window` before them.

    The spike score of OLMo 2 (arXiv:2501.00656, section 3.1), for a loss or a gradient norm. A value with fewer than 5
    before it does not count.

    >>> spike_score([1.0, 1.1, 1.0, 0.9, 1.0, 9.0, 1.0, 1.1, 1.0, 0.9])
    0.1
    """
    hits = 0
    for index, value in enumerate(values):
        past = values[max(0, index - window) : index]
        if len(past) >= MIN_HISTORY:
            hits += not abs(value - fmean(past)) < sigmas * pstdev(past)
    return hits / len(values) if values else 0.0


@dataclass(frozen=True, kw_only=True)
class Spike:
    """A spike and what became of it."""

    index: int
    """Index of its highest value."""
    kind: Literal["catapult", "failure", "open"]
    """catapult: the loss came back; failure: it did not; open: the series ends too early to tell."""
    recovered_index: int | None
    """The first index at which the loss was back, for a catapult."""


def label_spikes(
    values: Sequence[float], *, window: int = 100, threshold: float = 8.0, patience: int = 50
) -> list[Spike]:
    """The spikes of a loss, each with what became of it.

    Kalra & Barkeshli 2024 (arXiv:2406.09405, section 3) call the recovering case a catapult: the loss rises above the
    critical learning rate, sharpness falls, and training goes on. Here it is one whose loss is back at the median of
    the 5 values before within `patience` steps; after that it is a failure.

    >>> label_spikes([4.0, 3.9, 3.8, 3.7, 3.6, 3.5, 7.0, 3.6, 3.4])
    [Spike(index=6, kind='catapult', recovered_index=7)]
    """
    return [_label(values, rise, patience) for rise in _rises(values, window, threshold)]


def _rises(values: Sequence[float], window: int, threshold: float) -> list[range]:
    """The stretches of neighbouring values that are all spikes."""
    rises: list[range] = []
    for index, score in enumerate(robust_z_scores(values, window=window)):
        if score >= threshold:
            start = rises.pop().start if rises and rises[-1].stop == index else index
            rises.append(range(start, index + 1))
    return rises


def _top(values: Sequence[float], rise: range) -> int:
    return max(rise, key=lambda index: math.inf if math.isnan(values[index]) else values[index])


def _label(values: Sequence[float], rise: range, patience: int) -> Spike:
    index = _top(values, rise)
    level = median(values[max(0, rise.start - MIN_HISTORY) : rise.start])
    after = range(index + 1, min(len(values), index + 1 + patience))
    back = next((place for place in after if values[place] <= level), None)
    if back is not None:
        return Spike(index=index, kind="catapult", recovered_index=back)
    return Spike(index=index, kind="failure" if len(after) == patience else "open", recovered_index=None)


def _z_score(past: Sequence[float], value: float) -> float:
    if len(past) < MIN_HISTORY:
        return math.nan
    if not math.isfinite(value):
        return math.inf
    finite = [log for log in past if math.isfinite(log)]
    if len(finite) < MIN_HISTORY:
        return math.nan
    step = median(later - earlier for earlier, later in pairwise(finite))
    expected = [log + step * (len(finite) - place) for place, log in enumerate(finite)]
    centre = median(expected)
    spread = MAD_TO_SIGMA * median(abs(log - centre) for log in expected)
    return (value - centre) / max(spread, MIN_SIGMA)
