"""The shapes of warmups. A new one is one entry of WARMUP_SHAPES.

Each function makes a height from its parameters, which are T_w = `warmup_steps` and options. The height is 0 at the
start and 1 at the peak, at n = T_w.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hfwarmup.errors import UserError
from hfwarmup.schedules.shapes import Blend, Height, Shape, arithmetic, geometric

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
    blend: Blend = arithmetic
    default_initial_lr: float = DEFAULT_INITIAL_LR
    """where it starts if no option says it"""
    counts_from_one: bool = False
    """whether the first update is n = 1, as in some papers, and not n = 0"""

    @property
    def from_beta2(self) -> bool:
        """Whether beta2 sets its length; such a shape only approaches 1, so it also damps the decay after it."""
        return "beta2" in self.parameters


def linear(warmup_steps: int) -> Height:
    """height = n / T_w (Goyal et al. 2017, arXiv:1706.02677, section 2.2).

    >>> linear(warmup_steps=100)(25)
    0.25
    """
    return lambda n: n / warmup_steps


def cosine(warmup_steps: int) -> Height:
    """Half a cosine up: height = (1 - cos(pi n / T_w)) / 2.

    >>> round(cosine(warmup_steps=100)(25), 4)
    0.1464
    """
    return lambda n: 0.5 * (1.0 - math.cos(math.pi * (n / warmup_steps)))


def polynomial(warmup_steps: int, power: float) -> Height:
    """height = (n / T_w) ** power; power 1 is linear, above 1 starts more gently.

    >>> polynomial(warmup_steps=100, power=2)(50)
    0.25
    """
    return lambda n: (n / warmup_steps) ** power


def saturating(warmup_steps: int, tau: float | None) -> Height:
    """height = (1 - exp(-n / tau)) / (1 - exp(-T_w / tau)): steep first, then flat; `tau` None is T_w / 5.

    Dividing by the last value makes the peak exact.

    >>> round(saturating(warmup_steps=100, tau=None)(20), 4)
    0.6364
    """
    tau = tau or warmup_steps / 5
    return lambda n: math.expm1(-n / tau) / math.expm1(-warmup_steps / tau)


def constant() -> Height:
    """height = 0 until the jump to the peak (Goyal et al. 2017, section 2.2: worse than no warmup).

    >>> constant()(99)
    0.0
    """
    return lambda _: 0.0


def untuned_linear(beta2: float) -> Height:
    """height = min(1, (1 - beta2) n / 2), n = 1, 2, … (Ma & Yarats 2021, arXiv:1910.04209, eq. 11).

    >>> untuned_linear(beta2=0.75)(10), untuned_linear(beta2=0.75)(1)
    (1.0, 0.125)
    """
    return lambda n: min(1.0, 0.5 * (1.0 - beta2) * n)


def untuned_exponential(beta2: float) -> Height:
    """height = 1 - exp(-(1 - beta2) n), n = 1, 2, … (Ma & Yarats 2021, arXiv:1910.04209, eq. 9).

    >>> round(untuned_exponential(beta2=0.999)(1000), 4)
    0.6321
    """
    return lambda n: -math.expm1(-(1.0 - beta2) * n)


def radam(beta2: float) -> Height:
    """RAdam's rectification as a warmup (Liu et al. 2020, arXiv:1908.03265, algorithm 2).

    height = sqrt(((r_t - 4)(r_t - 2) r_inf) / ((r_inf - 4)(r_inf - 2) r_t)) with r_inf = 2/(1 - beta2) - 1 and
    r_t = r_inf - 2 t beta2^t / (1 - beta2^t). n = 1 is the first t with r_t > 4: 5 at beta2 >= 0.9, later below.

    >>> round(radam(beta2=0.999)(1), 4), round(radam(beta2=0.999)(2733), 2)
    (0.0173, 0.9)
    """

    def length(t: int) -> float:
        return limit - 2.0 * t * beta2**t / (1.0 - beta2**t)

    def height(n: int) -> float:
        r = length(first + n - 1)
        return math.sqrt((r - 4.0) * (r - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * r))

    limit = 2.0 / (1.0 - beta2) - 1.0
    first = next(t for t in range(1, 1000) if length(t) > 4.0)
    return height


def gi(beta2: float) -> Height:
    """GI-Adam's automatic warmup: height = sqrt(1 - beta2^n) (Kalra & Barkeshli 2024, arXiv:2406.09405, appendix I.2).

    >>> round(gi(beta2=0.999)(1), 4), round(gi(beta2=0.999)(1660), 2)
    (0.0316, 0.9)
    """
    return lambda n: math.sqrt(-math.expm1(n * math.log(beta2)))


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


_counted_from_one = partial(WarmupShape, reads=frozenset(), default_initial_lr=0.0, counts_from_one=True)

WARMUP_SHAPES: dict[str, WarmupShape] = {
    "linear": WarmupShape(make=linear, default_initial_lr=0.0),
    "gradual": WarmupShape(make=linear),
    "exponential": WarmupShape(make=linear, blend=geometric, check=_check_exponential),
    "cosine": WarmupShape(make=cosine),
    "polynomial": WarmupShape(make=polynomial),
    "saturating": WarmupShape(make=saturating),
    "constant": WarmupShape(make=constant),
    "noam": _counted_from_one(make=linear, reads=frozenset({"d_model"}), check=_check_noam),
    "untuned_linear": _counted_from_one(make=untuned_linear),
    "untuned_exponential": _counted_from_one(make=untuned_exponential),
    "radam": _counted_from_one(make=radam, check=_check_radam),
    "gi": _counted_from_one(make=gi),
}
"""Every value of the option `warmup_shape`."""
