"""The options of a schedule: one config for every name, checked once, with errors that name the remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal

from hfwarmup.errors import UserError, check_choice, check_number, did_you_mean

_START = {"initial_lr", "initial_ratio"}
_FLOOR = {"final_lr", "final_ratio"}
_PLATEAU = {"metric", "mode", "factor", "patience", "threshold", "cooldown", "min_lr"}

WARMUP_OPTIONS: dict[str, set[str]] = {
    "linear": _START,
    "gradual": _START,
    "exponential": _START,
    "cosine": _START,
    "polynomial": _START | {"power"},
    "saturating": _START | {"tau"},
    "constant": _START,
    "noam": {"d_model"},
    "untuned_linear": {"beta2"},
    "untuned_exponential": {"beta2"},
    "radam": {"beta2"},
    "gi": {"beta2"},
}
"""Each warmup and the options that it reads."""

DECAY_OPTIONS: dict[str, set[str]] = {
    "constant": set(),
    "linear": _FLOOR,
    "cosine": _FLOOR,
    "polynomial": _FLOOR | {"power"},
    "exponential": _FLOOR,
    "inverse_sqrt": _FLOOR,
    "step": _FLOOR | {"step_size", "gamma"},
    "wsd": _FLOOR | {"stable_ratio", "cooldown_shape"},
    "restarts": _FLOOR | {"num_cycles"},
    "plateau": _PLATEAU,
}
"""Each decay and the options that it reads."""

BETA2_WARMUPS = frozenset(name for name, options in WARMUP_OPTIONS.items() if "beta2" in options)
"""Warmups whose length is 2 / (1 - beta2) and not an argument."""

ENDLESS_DECAYS = frozenset({"constant", "inverse_sqrt", "step", "plateau"})
"""Decays whose curve does not depend on the number of updates of the run."""

DEFAULT_INITIAL_LR = 1e-7
"""Where a warmup starts that was not told where."""

COMMON_OPTIONS = {"warmup", "decay", "weight_decay"}
"""Options that every combination reads."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """What a schedule is, apart from its peak and its lengths. Learning rates are absolute, ratios are of the peak."""

    warmup: str = "gradual"
    """shape of the warmup, a key of WARMUP_OPTIONS"""
    decay: str = "constant"
    """shape after the warmup, a key of DECAY_OPTIONS"""
    initial_lr: float | None = None
    """learning rate of the first update"""
    initial_ratio: float | None = None
    """the same as a share of the peak"""
    final_lr: float | None = None
    """learning rate from the last update on; for inverse_sqrt and step the floor"""
    final_ratio: float | None = None
    """the same as a share of the peak"""
    power: float = 2.0
    """exponent of polynomial"""
    tau: float | None = None
    """time constant of saturating in updates; empty: a fifth of the warmup"""
    beta2: float | None = None
    """Adam's second beta; empty: read from the optimizer"""
    d_model: int | None = None
    """model width; makes noam's rate absolute: d_model^-0.5 min(s^-0.5, s warmup_steps^-1.5)"""
    num_cycles: int = 2
    """cosine cycles of restarts"""
    stable_ratio: float = 0.9
    """share of the run at which wsd begins to cool down"""
    cooldown_shape: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """shape of wsd's cooldown"""
    step_size: int | None = None
    """updates between the steps of step"""
    gamma: float = 0.1
    """factor of each step of step"""
    metric: str = "eval_loss"
    """what plateau watches, a key of the evaluation's metrics"""
    mode: Literal["min", "max"] = "min"
    """whether the metric should fall or rise"""
    factor: float = 0.1
    """what plateau multiplies the learning rate by"""
    patience: int = 10
    """evaluations without progress that plateau forgives"""
    threshold: float = 1e-4
    """relative change that counts as progress"""
    cooldown: int = 0
    """evaluations after a reduction in which plateau does not count"""
    min_lr: float = 0.0
    """learning rate below which plateau does not go"""
    weight_decay: Literal["coupled", "independent", "proportional", "constant"] = "coupled"
    """what an update decays the weights by, see hfwarmup.optim.weight_decay.decay_coefficient"""

    def __post_init__(self) -> None:
        check_choice("warmup", self.warmup, WARMUP_OPTIONS)
        check_choice("decay", self.decay, DECAY_OPTIONS)
        check_choice("cooldown_shape", self.cooldown_shape, ("linear", "cosine", "1-sqrt"))
        check_choice("mode", self.mode, ("min", "max"))
        check_choice("weight_decay", self.weight_decay, ("coupled", "independent", "proportional", "constant"))
        for name in ("initial_lr", "final_lr", "threshold", "min_lr"):
            check_number(name, getattr(self, name), low=0)
        for name in ("initial_ratio", "final_ratio", "stable_ratio", "gamma"):
            check_number(name, getattr(self, name), low=0, high=1)
        for name in ("patience", "cooldown"):
            check_number(name, getattr(self, name), low=0, whole=True)
        for name in ("d_model", "num_cycles", "step_size"):
            check_number(name, getattr(self, name), low=1, whole=True)
        for name in ("tau", "power"):
            check_number(name, getattr(self, name), low=0, above=True)
        check_number("factor", self.factor, low=0, high=1, below=True)
        check_number("beta2", self.beta2, low=0, high=1, above=True, below=True)
        for pair in (("initial_lr", "initial_ratio"), ("final_lr", "final_ratio")):
            values = [getattr(self, name) for name in pair]
            if None not in values:
                raise UserError(
                    f"{pair[0]}={values[0]} and {pair[1]}={values[1]} both set the same end; give one of them."
                )
        if self.warmup == "exponential" and 0.0 in (self.initial_lr, self.initial_ratio):
            raise UserError("warmup='exponential' cannot start from 0; set initial_lr above 0, for example 1e-7.")
        if self.decay == "exponential" and not (self.final_lr or self.final_ratio):
            raise UserError("decay='exponential' never reaches 0; set final_lr or final_ratio above 0.")
        if self.decay == "step" and self.step_size is None:
            raise UserError("decay='step' needs step_size: the updates between two steps.")
        if self.d_model is not None and self.decay != "inverse_sqrt":
            raise UserError(
                f"d_model={self.d_model} with decay={self.decay!r}: Vaswani's rate needs decay='inverse_sqrt'."
            )
        if self.warmup == "radam" and self.beta2 is not None and self.beta2 <= 0.6:
            raise UserError(f"beta2={self.beta2}: RAdam's rectification needs beta2 above 0.6; use 'untuned_linear'.")

    @classmethod
    def resolve(cls, name: str, defaults: dict[str, Any], given: dict[str, Any]) -> ScheduleOptions:
        """The options of schedule `name`: its `defaults`, with those `given` in their place.

        Raises ValueError for an option that is unknown or that the chosen warmup and decay do not read. A default
        gives way in silence when the given options leave no room for it; what was given never does.

        >>> ScheduleOptions.resolve("warmup_cosine", {"decay": "cosine"}, {"final_ration": 0.1})
        Traceback (most recent call last):
        hfwarmup.errors.UserError: 'warmup_cosine' has no option 'final_ration'; did you mean 'final_ratio'? It takes \
decay, final_lr, final_ratio, initial_lr, initial_ratio, warmup, weight_decay.
        """
        chosen = {**defaults, **given}
        warmup, decay = chosen.get("warmup", cls.warmup), chosen.get("decay", cls.decay)
        check_choice("warmup", warmup, WARMUP_OPTIONS)
        check_choice("decay", decay, DECAY_OPTIONS)
        valid = COMMON_OPTIONS | WARMUP_OPTIONS[warmup] | DECAY_OPTIONS[decay]
        for option in given:
            if option not in valid:
                raise UserError(_unknown_option(name, option, warmup, decay, valid))
        replaced: set[str] = set()
        for part, ends in (("warmup", _START), ("decay", _FLOOR)):
            if part in given or ends & given.keys():  # another shape, or the other way to say its end
                replaced |= ends
        kept = {option: value for option, value in defaults.items() if option in valid and option not in replaced}
        return cls(**{**kept, **given})

    def used(self) -> dict[str, Any]:
        """The options that this warmup and decay read, as plain data: what a checkpoint remembers of the schedule."""
        valid = COMMON_OPTIONS | WARMUP_OPTIONS[self.warmup] | DECAY_OPTIONS[self.decay]
        return {option: value for option, value in asdict(self).items() if option in valid and value is not None}


def _unknown_option(name: str, option: str, warmup: str, decay: str, valid: set[str]) -> str:
    """The one line for an option that does not apply: nearest name if it is misspelt, the combination if it is not."""
    takes = f"It takes {', '.join(sorted(valid))}."
    if option in {field.name for field in fields(ScheduleOptions)}:
        return f"{name!r} does not read {option!r} with warmup={warmup!r} and decay={decay!r}. {takes}"
    return f"{name!r} has no option {option!r}{did_you_mean(option, valid)} {takes}"


def plain(value: Any) -> Any:
    """A number of any library, such as NumPy's int64, as Python's own, which a checkpoint can keep; else the value.

    >>> from fractions import Fraction
    >>> plain(Fraction(1, 4)), plain(True), plain("cosine")
    (0.25, True, 'cosine')
    """
    if isinstance(value, Integral):
        return value if isinstance(value, bool) else int(value)
    return float(value) if isinstance(value, Real) else value
