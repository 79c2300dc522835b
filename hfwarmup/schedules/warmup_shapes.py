"""The shapes of warmups. A new one is one entry of WARMUP_SHAPES.

A height is 0 at the start of a warmup and 1 at the peak, n = `count` updates into a warmup of T_w = `warmup_steps`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfwarmup.errors import UserError
from hfwarmup.schedules.shapes import Shape, from_zero, geometric

if TYPE_CHECKING:
    from hfwarmup.schedules.options import ScheduleOptions

START = frozenset({"initial_lr", "initial_ratio"})
"""The options that set where a warmup starts."""
DEFAULT_INITIAL_LR = 1e-7
"""Learning rate of the first update where no option sets it."""


@dataclass(frozen=True, kw_only=True)
class WarmupShape(Shape):
    """A shape up to the peak, blended between start and peak."""

    reads: frozenset[str] = START
    default_initial_lr: float = DEFAULT_INITIAL_LR
    """where it starts if no option says it"""
    counts_from_one: bool = False
    """whether the first update counts as 1 of T_w, as in some papers, and not as 0"""

    @property
    def from_beta2(self) -> bool:
        """Whether beta2 sets its length; such a shape only approaches 1, so it also damps the decay after it."""
        return "beta2" in self.asks_for


def linear(count: int, warmup_steps: int) -> float:
    """height = n / T_w (Goyal et al. 2017, arXiv:1706.02677, section 2.2).

    >>> linear(25, warmup_steps=100)
    0.25
    """
    return count / warmup_steps


def cosine(count: int, warmup_steps: int) -> float:
    """Half a cosine up: height = (1 - cos(pi n / T_w)) / 2.

    >>> round(cosine(25, warmup_steps=100), 4)
    0.1464
    """
    return 0.5 * (1.0 - math.cos(math.pi * (count / warmup_steps)))


def polynomial(count: int, warmup_steps: int, power: float) -> float:
    """height = (n / T_w) ** power; power 1 is linear, above 1 starts more gently.

    >>> polynomial(50, warmup_steps=100, power=2)
    0.25
    """
    return (count / warmup_steps) ** power


def saturating(count: int, warmup_steps: int, tau: float | None) -> float:
    """height = (1 - exp(-n / tau)) / (1 - exp(-T_w / tau)): steep first, then flat; without `tau` it is T_w / 5.

    Dividing by the last value makes the peak exact.

    >>> round(saturating(20, warmup_steps=100, tau=None), 4)
    0.6364
    """
    tau = tau or warmup_steps / 5
    return math.expm1(-count / tau) / math.expm1(-warmup_steps / tau)


def constant(_count: int) -> float:
    """height = 0 until the jump to the peak (Goyal et al. 2017, section 2.2: worse than no warmup).

    >>> constant(99)
    0.0
    """
    return 0.0


def untuned_linear(count: int, beta2: float) -> float:
    """height = min(1, (1 - beta2) s / 2), s = 1, 2, … (Ma & Yarats 2021, arXiv:1910.04209, eq. 11).

    >>> untuned_linear(10, beta2=0.75), untuned_linear(1, beta2=0.75)
    (1.0, 0.125)
    """
    return min(1.0, 0.5 * (1.0 - beta2) * count)


def untuned_exponential(count: int, beta2: float) -> float:
    """height = 1 - exp(-(1 - beta2) s), s = 1, 2, … (Ma & Yarats 2021, arXiv:1910.04209, eq. 9).

    >>> round(untuned_exponential(1000, beta2=0.999), 4)
    0.6321
    """
    return -math.expm1(-(1.0 - beta2) * count)


def radam(count: int, beta2: float) -> float:
    """RAdam's rectification as a warmup (Liu et al. 2020, arXiv:1908.03265, algorithm 2).

    height = sqrt(((r_t - 4)(r_t - 2) r_inf) / ((r_inf - 4)(r_inf - 2) r_t)) with r_inf = 2/(1 - beta2) - 1 and
    r_t = r_inf - 2 t beta2^t / (1 - beta2^t). The first update uses t = 5, the first with r_t > 4 at beta2 >= 0.9.

    >>> round(radam(1, beta2=0.999), 4), round(radam(2733, beta2=0.999), 2)
    (0.0173, 0.9)
    """
    limit = 2.0 / (1.0 - beta2) - 1.0
    t = count + _radam_offset(beta2) - 1
    length = limit - 2.0 * t * beta2**t / (1.0 - beta2**t)
    return math.sqrt((length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length))


def _radam_offset(beta2: float) -> int:
    """The first t whose r_t exceeds 4: 5 wherever beta2 >= 0.9, at most a handful more down to 0.6.

    >>> _radam_offset(0.999), _radam_offset(0.9), _radam_offset(0.7)
    (5, 5, 6)
    """
    limit = 2.0 / (1.0 - beta2) - 1.0
    return next(t for t in range(1, 1000) if limit - 2.0 * t * beta2**t / (1.0 - beta2**t) > 4.0)


def gi(count: int, beta2: float) -> float:
    """GI-Adam's automatic warmup: height = sqrt(1 - beta2^s) (Kalra & Barkeshli 2024, arXiv:2406.09405, appendix I.2).

    >>> round(gi(1, beta2=0.999), 4), round(gi(1660, beta2=0.999), 2)
    (0.0316, 0.9)
    """
    return math.sqrt(-math.expm1(count * math.log(beta2)))


def beta2_warmup_steps(beta2: float) -> int:
    """Updates of the warmups of beta2: ceil(2 / (1 - beta2)) (Ma & Yarats 2021, arXiv:1910.04209, eq. 11).

    >>> beta2_warmup_steps(0.999)
    2000
    """
    return math.ceil(2.0 / (1.0 - beta2) - 1e-6)


def _check_exponential(options: ScheduleOptions) -> None:
    if 0.0 in (options.initial_lr, options.initial_ratio):
        raise UserError("warmup_shape='exponential' cannot start from 0; set initial_lr above 0, for example 1e-7.")


def _check_noam(options: ScheduleOptions) -> None:
    if options.d_model is not None and options.decay != "inverse_sqrt":
        raise UserError(
            f"d_model={options.d_model} with decay={options.decay!r}: Vaswani's rate needs decay='inverse_sqrt'."
        )


def _check_radam(options: ScheduleOptions) -> None:
    if options.beta2 is not None and options.beta2 <= 0.6:
        raise UserError(f"beta2={options.beta2}: RAdam's rectification needs beta2 above 0.6; use 'untuned_linear'.")


NONE = frozenset[str]()
WARMUP_SHAPES: dict[str, WarmupShape] = {
    "linear": WarmupShape(height=linear, default_initial_lr=0.0),
    "gradual": WarmupShape(height=linear),
    "exponential": WarmupShape(height=linear, blend=geometric, check=_check_exponential),
    "cosine": WarmupShape(height=cosine),
    "polynomial": WarmupShape(height=polynomial),
    "saturating": WarmupShape(height=saturating),
    "constant": WarmupShape(height=constant),
    "noam": WarmupShape(
        height=linear, reads=frozenset({"d_model"}), blend=from_zero, counts_from_one=True, check=_check_noam
    ),
    "untuned_linear": WarmupShape(height=untuned_linear, reads=NONE, blend=from_zero, counts_from_one=True),
    "untuned_exponential": WarmupShape(height=untuned_exponential, reads=NONE, blend=from_zero, counts_from_one=True),
    "radam": WarmupShape(height=radam, reads=NONE, blend=from_zero, counts_from_one=True, check=_check_radam),
    "gi": WarmupShape(height=gi, reads=NONE, blend=from_zero, counts_from_one=True),
}
"""Every value of the option `warmup_shape`."""
