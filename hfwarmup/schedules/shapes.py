"""The shapes that warmups and decays are made of, and the ways to lay a shape between two learning rates.

A rise maps its progress p in [0, 1] to a height in [0, 1] (0 is the start, 1 the peak); a fall maps its progress
q in [0, 1] to a height that begins at 1. A ramp of Adam's beta2 maps the 1-based update s to a height and only
approaches 1. A blend turns a height into learning rates between a low level and the peak.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def linear(progress: float) -> float:
    """Gradual warmup: height = p (Goyal et al. 2017, arXiv:1706.02677, section 2.2).

    >>> linear(0.25)
    0.25
    """
    return progress


def cosine(progress: float) -> float:
    """Half a cosine up: height = (1 - cos(pi p)) / 2.

    >>> round(cosine(0.25), 4)
    0.1464
    """
    return 0.5 * (1.0 - math.cos(math.pi * progress))


def polynomial(progress: float, power: float) -> float:
    """height = p ** power; power 1 is linear, above 1 starts more gently.

    >>> polynomial(0.5, power=2)
    0.25
    """
    return progress**power


def saturating(progress: float, time_constants: float) -> float:
    """height = (1 - exp(-c p)) / (1 - exp(-c)) with c = warmup_steps / tau time constants in the whole warmup.

    Steep first, then flattening; dividing by the last value makes the peak exact.

    >>> round(saturating(0.2, time_constants=5), 4)
    0.6364
    """
    return math.expm1(-time_constants * progress) / math.expm1(-time_constants)


def hold(_progress: float) -> float:
    """Constant warmup: height = 0 until the jump to the peak (Goyal et al. 2017, section 2.2: worse than none).

    >>> hold(0.99)
    0.0
    """
    return 0.0


def untuned_linear(step: int, beta2: float) -> float:
    """height = min(1, (1 - beta2) s / 2), s = 1, 2, … (Ma & Yarats 2021, arXiv:1910.04209, eq. 11).

    >>> untuned_linear(10, beta2=0.75), untuned_linear(1, beta2=0.75)
    (1.0, 0.125)
    """
    return min(1.0, 0.5 * (1.0 - beta2) * step)


def untuned_exponential(step: int, beta2: float) -> float:
    """height = 1 - exp(-(1 - beta2) s), s = 1, 2, … (Ma & Yarats 2021, arXiv:1910.04209, eq. 9).

    >>> round(untuned_exponential(1000, beta2=0.999), 4)
    0.6321
    """
    return -math.expm1(-(1.0 - beta2) * step)


def radam(step: int, beta2: float) -> float:
    """RAdam's rectification as a warmup (Liu et al. 2020, arXiv:1908.03265, algorithm 2).

    height = sqrt(((r_t - 4)(r_t - 2) r_inf) / ((r_inf - 4)(r_inf - 2) r_t)) with r_inf = 2/(1 - beta2) - 1 and
    r_t = r_inf - 2 t beta2^t / (1 - beta2^t). Update s = 1 uses t = 5, the first with r_t > 4 at beta2 >= 0.9.

    >>> round(radam(1, beta2=0.999), 4), round(radam(2733, beta2=0.999), 2)
    (0.0173, 0.9)
    """
    limit = 2.0 / (1.0 - beta2) - 1.0
    t = step + _radam_offset(beta2) - 1
    length = limit - 2.0 * t * beta2**t / (1.0 - beta2**t)
    return math.sqrt((length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length))


def _radam_offset(beta2: float) -> int:
    """The first t whose r_t exceeds 4: 5 wherever beta2 >= 0.9, at most a handful more down to 0.6.

    >>> _radam_offset(0.999), _radam_offset(0.9), _radam_offset(0.7)
    (5, 5, 6)
    """
    limit = 2.0 / (1.0 - beta2) - 1.0
    return next(t for t in range(1, 1000) if limit - 2.0 * t * beta2**t / (1.0 - beta2**t) > 4.0)


def gi(step: int, beta2: float) -> float:
    """GI-Adam's automatic warmup: height = sqrt(1 - beta2^s) (Kalra & Barkeshli 2024, arXiv:2406.09405, appendix I.2).

    >>> round(gi(1, beta2=0.999), 4), round(gi(1660, beta2=0.999), 2)
    (0.0316, 0.9)
    """
    return math.sqrt(-math.expm1(step * math.log(beta2)))


def constant(_progress: float) -> float:
    """No decay: height = 1.

    >>> constant(0.7)
    1.0
    """
    return 1.0


def linear_fall(progress: float) -> float:
    """Linear decay: height = 1 - q.

    >>> linear_fall(0.25)
    0.75
    """
    return 1.0 - progress


def cosine_fall(progress: float) -> float:
    """Cosine decay: height = (1 + cos(pi q)) / 2 (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one cycle).

    >>> cosine_fall(0.5)
    0.5
    """
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def restarts(steps_after_warmup: int, length_steps: int, num_cycles: int) -> float:
    """Cosine with hard restarts: height = (1 + cos(pi (c mod 1))) / 2, c = num_cycles n / length_steps (same, eq. 5).

    It is 0 at the end of the last cycle. The remainder is taken in whole numbers, so that a restart is exactly at 1.

    >>> [round(restarts(n, length_steps=100, num_cycles=2), 3) for n in (0, 25, 49, 50, 100)]
    [1.0, 0.5, 0.001, 1.0, 0.0]
    """
    if steps_after_warmup >= length_steps:
        return 0.0
    return cosine_fall(steps_after_warmup * num_cycles % length_steps / length_steps)


def one_minus_sqrt(progress: float) -> float:
    """The cooldown that Hägele et al. 2024 (arXiv:2405.18392, section 3) found best: height = 1 - sqrt(q).

    >>> one_minus_sqrt(0.25)
    0.5
    """
    return 1.0 - math.sqrt(progress)


def inverse_sqrt(steps_after_warmup: int, timescale_steps: int) -> float:
    """height = sqrt(s / (s + n)), n updates after a warmup of s = max(1, warmup_steps) (Vaswani et al. 2017, eq. 3).

    >>> inverse_sqrt(300, timescale_steps=100)
    0.5
    """
    return math.sqrt(timescale_steps / (timescale_steps + steps_after_warmup))


def staircase(steps_after_warmup: int, step_size: int, gamma: float) -> float:
    """height = gamma ** floor(n / step_size), n updates after the warmup.

    >>> staircase(25, step_size=10, gamma=0.5)
    0.25
    """
    return gamma ** (steps_after_warmup // step_size)


Blend = Callable[[float, float, float], float]
"""(low level, peak, height in [0, 1]) -> the learning rate at that height between the two."""


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
    """peak h, for warmups counted from 1: their 0 is before the first update.

    >>> from_zero(1e-7, 1.0, 0.25)
    0.25
    """
    return peak * height
