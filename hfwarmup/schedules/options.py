"""The options of a schedule: one config for every name, checked once, with errors that name the remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, get_args

from hfwarmup.errors import Range, UserError, check_choice, did_you_mean
from hfwarmup.schedules.decay_shapes import COOLDOWN_SHAPES, DECAY_SHAPES, FLOOR
from hfwarmup.schedules.warmup_shapes import START, WARMUP_SHAPES

Mode = Literal["min", "max"]
WeightDecay = Literal["coupled", "independent", "proportional", "constant"]


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """What a schedule is, apart from its peak and its lengths. Learning rates are absolute, ratios are of the peak."""

    warmup_shape: str = "gradual"
    """shape of the warmup, a key of WARMUP_SHAPES"""
    decay: str = "constant"
    """shape after the warmup, a key of DECAY_SHAPES"""
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
    cooldown_shape: str = "linear"
    """shape of wsd's cooldown, a key of COOLDOWN_SHAPES"""
    step_size: int | None = None
    """updates between the steps of step"""
    gamma: float = 0.1
    """factor of each step of step"""
    metric: str = "eval_loss"
    """what plateau watches, a key of the evaluation's metrics"""
    mode: Mode = "min"
    """whether the metric should fall or rise"""
    factor: float = 0.1
    """what plateau multiplies the learning rate by"""
    patience: int = 10
    """evaluations without progress that plateau accepts before it reduces the learning rate"""
    threshold: float = 1e-4
    """relative change that counts as progress"""
    cooldown: int = 0
    """evaluations after a reduction in which plateau does not count"""
    min_lr: float = 0.0
    """learning rate below which plateau does not go"""
    weight_decay: WeightDecay = "coupled"
    """what an update decays the weights by, see hfwarmup.optim.weight_decay.decay_coefficient"""

    def __post_init__(self) -> None:
        check_choice("warmup_shape", self.warmup_shape, WARMUP_SHAPES)
        check_choice("decay", self.decay, DECAY_SHAPES)
        check_choice("cooldown_shape", self.cooldown_shape, COOLDOWN_SHAPES)
        check_choice("mode", self.mode, get_args(Mode))
        check_choice("weight_decay", self.weight_decay, get_args(WeightDecay))
        for name in ("initial_lr", "final_lr", "threshold", "min_lr"):
            Range(0).check(name, getattr(self, name))
        for name in ("initial_ratio", "final_ratio", "stable_ratio", "gamma"):
            Range(0, 1).check(name, getattr(self, name))
        for name in ("patience", "cooldown"):
            Range(0, whole=True).check(name, getattr(self, name))
        for name in ("d_model", "num_cycles", "step_size"):
            Range(1, whole=True).check(name, getattr(self, name))
        for name in ("tau", "power"):
            Range(0, above=True).check(name, getattr(self, name))
        Range(0, 1, below=True).check("factor", self.factor)
        Range(0, 1, above=True, below=True).check("beta2", self.beta2)
        for lr, ratio in (("initial_lr", "initial_ratio"), ("final_lr", "final_ratio")):
            values = (getattr(self, lr), getattr(self, ratio))
            if None not in values:
                raise UserError(f"{lr}={values[0]} and {ratio}={values[1]} set the same value; give one of them.")
        WARMUP_SHAPES[self.warmup_shape].check(self)
        DECAY_SHAPES[self.decay].check(self)

    @classmethod
    def resolve(cls, name: str, defaults: dict[str, Any], given: dict[str, Any]) -> ScheduleOptions:
        """The options of schedule `name`: its `defaults`, with those `given` in their place.

        Raises UserError for an option that is unknown, or that the chosen shapes do not read. A default gives way in
        silence when the given options leave no room for it; what was given never does.

        >>> ScheduleOptions.resolve("warmup_cosine", {"decay": "cosine"}, {"final_ration": 0.1})
        Traceback (most recent call last):
        hfwarmup.errors.UserError: 'warmup_cosine' has no option 'final_ration'; did you mean 'final_ratio'? It takes \
decay, final_lr, final_ratio, initial_lr, initial_ratio, warmup_shape, weight_decay.
        """
        chosen = {**defaults, **given}
        warmup_shape, decay = chosen.get("warmup_shape", cls.warmup_shape), chosen.get("decay", cls.decay)
        check_choice("warmup_shape", warmup_shape, WARMUP_SHAPES)
        check_choice("decay", decay, DECAY_SHAPES)
        valid = _read_by(warmup_shape, decay)
        for option in given:
            if option not in valid:
                raise UserError(_unknown_option(name, option, warmup_shape, decay))
        replaced: set[str] = set()
        for shape, ends in (("warmup_shape", START), ("decay", FLOOR)):
            if shape in given or ends & given.keys():  # another shape, or the other way to say its end
                replaced |= ends
        kept = {option: value for option, value in defaults.items() if option in valid and option not in replaced}
        return cls(**{**kept, **given})

    def used(self) -> dict[str, Any]:
        """The options that this warmup and decay read, as plain data: what a checkpoint remembers of the schedule."""
        valid = _read_by(self.warmup_shape, self.decay)
        return {option: value for option, value in asdict(self).items() if option in valid and value is not None}


def _read_by(warmup_shape: str, decay: str) -> frozenset[str]:
    """The options that a warmup and a decay read together."""
    common = {"warmup_shape", "decay", "weight_decay"}
    return WARMUP_SHAPES[warmup_shape].options | DECAY_SHAPES[decay].options | common


def _unknown_option(name: str, option: str, warmup_shape: str, decay: str) -> str:
    """The one line for an option that does not apply: nearest name if it is misspelt, the shapes if it is not."""
    valid = _read_by(warmup_shape, decay)
    takes = f"It takes {', '.join(sorted(valid))}."
    if option in {field.name for field in fields(ScheduleOptions)}:
        return f"{name!r} does not read {option!r} with warmup_shape={warmup_shape!r} and decay={decay!r}. {takes}"
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
