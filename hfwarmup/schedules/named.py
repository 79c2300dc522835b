"""The schedules by name. A new one is one entry of SCHEDULES: a set of defaults, each of which can be overridden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hfwarmup.errors import UserError, did_you_mean
from hfwarmup.schedules.curve import Schedule, compile_curve
from hfwarmup.schedules.options import ScheduleOptions
from hfwarmup.schedules.warmup_shapes import WARMUP_SHAPES

ScheduleFactory = Callable[..., Schedule]
"""(*, peak_lr, num_warmup_steps, num_training_steps, **options) -> Schedule: what a user registers under a name."""


@dataclass(frozen=True, kw_only=True)
class NamedSchedule:
    """A name's defaults, and what it stands for."""

    formula: str
    """the learning rate of update t in words and symbols; eta is the peak, p = t / T_w, q = (t - T_w) / (T - T_w)"""
    source: str
    """where it comes from"""
    defaults: dict[str, Any] = field(default_factory=dict)
    """the options that the name sets"""


SCHEDULES: dict[str, NamedSchedule] = {
    "gradual_warmup": NamedSchedule(
        formula="eta0 + (eta - eta0) p, eta0 = 1e-7; then eta",
        source="Goyal et al. 2017, arXiv:1706.02677, section 2.2",
    ),
    "exponential_warmup": NamedSchedule(
        formula="eta (eta0 / eta)^(1 - p), eta0 = 1e-7; then eta",
        source="geometric interpolation between start and peak",
        defaults={"warmup_shape": "exponential"},
    ),
    "warmup_cosine": NamedSchedule(
        formula="gradual; then f + (eta - f)(1 + cos(pi q)) / 2, f = 0.1 eta",
        source="Loshchilov & Hutter 2017, arXiv:1608.03983; the floor as in Hoffmann et al. 2022, arXiv:2203.15556",
        defaults={"decay": "cosine", "final_ratio": 0.1},
    ),
    "warmup_linear": NamedSchedule(
        formula="gradual; then eta (1 - q)",
        source="Bergsma et al. 2025, arXiv:2502.15938",
        defaults={"decay": "linear"},
    ),
    "warmup_wsd": NamedSchedule(
        formula="gradual; eta up to 0.9 T; then down to 0 at T (linear, cosine or 1-sqrt)",
        source="Hu et al. 2024, arXiv:2404.06395; Hägele et al. 2024, arXiv:2405.18392",
        defaults={"decay": "wsd"},
    ),
    "constant_warmup": NamedSchedule(
        formula="eta0 = 0.1 eta for T_w updates; then a jump to eta",
        source="Goyal et al. 2017, section 2.2, where it did worse than no warmup: for comparison only",
        defaults={"warmup_shape": "constant", "initial_ratio": 0.1},
    ),
    "saturating_warmup": NamedSchedule(
        formula="eta0 + (eta - eta0)(1 - e^(-t / tau)) / (1 - e^(-T_w / tau)), tau = T_w / 5; then eta",
        source="the step response of a first-order lag",
        defaults={"warmup_shape": "saturating"},
    ),
    "cosine_bell": NamedSchedule(
        formula="eta (1 - cos(pi p)) / 2; then eta (1 + cos(pi q)) / 2",
        source="half cosines on both sides of the peak; starts at 0 by its form",
        defaults={"warmup_shape": "cosine", "initial_lr": 0.0, "decay": "cosine"},
    ),
    "noam": NamedSchedule(
        formula="eta min(s / T_w, sqrt(T_w / s)), s = t + 1; with d_model: d_model^-0.5 min(s^-0.5, s T_w^-1.5)",
        source="Vaswani et al. 2017, arXiv:1706.03762, eq. 3",
        defaults={"warmup_shape": "noam", "decay": "inverse_sqrt"},
    ),
    "warmup_plateau": NamedSchedule(
        formula="gradual; then eta, times `factor` whenever the metric stalls for `patience` evaluations",
        source="warmup in front of torch's ReduceLROnPlateau",
        defaults={"decay": "plateau"},
    ),
    "warmup_restarts": NamedSchedule(
        formula="gradual; then eta (1 + cos(pi (n q mod 1))) / 2, n = 2 cycles",
        source="Loshchilov & Hutter 2017, eq. 5",
        defaults={"decay": "restarts"},
    ),
    "untuned_linear": NamedSchedule(
        formula="eta min(1, (1 - beta2) s / 2), s = t + 1",
        source="Ma & Yarats 2021, arXiv:1910.04209, eq. 11",
        defaults={"warmup_shape": "untuned_linear"},
    ),
    "untuned_exponential": NamedSchedule(
        formula="eta (1 - e^(-(1 - beta2) s)), s = t + 1",
        source="Ma & Yarats 2021, eq. 9",
        defaults={"warmup_shape": "untuned_exponential"},
    ),
    "radam_warmup": NamedSchedule(
        formula="eta times RAdam's rectification term, from its first defined update on",
        source="Liu et al. 2020, arXiv:1908.03265, algorithm 2",
        defaults={"warmup_shape": "radam"},
    ),
    "gi_warmup": NamedSchedule(
        formula="eta sqrt(1 - beta2^s), s = t + 1",
        source="Kalra & Barkeshli 2024, arXiv:2406.09405, appendix I.2",
        defaults={"warmup_shape": "gi"},
    ),
    "hfwarmup": NamedSchedule(
        formula="any `warmup_shape`, then any `decay`",
        source="the parts of the schedules above",
    ),
}

_factories: dict[str, ScheduleFactory] = {}


def add_schedule(name: str, factory: ScheduleFactory) -> None:
    """Make a user's own `factory` known under `name`.

    A function of the same module and qualified name replaces the one before, so that a notebook's cell can run again.

    Raises:
        UserError: another schedule has the name, in upper or lower case; or it is no name, or the factory no function.
    """
    if not isinstance(name, str) or not name:
        raise UserError(f"schedule {name!r}: give a name, as text.")
    if not callable(factory):
        raise UserError(f"schedule {name!r}: factory={factory!r} is not a function; give one that returns a schedule.")
    taken = {known.lower(): known for known in schedule_names()}.get(name.lower())
    again = name in _factories and _same_function(_factories[name], factory)
    if taken is not None and not again:
        known_as = "" if taken == name else f" as {taken!r}"
        raise UserError(f"schedule {name!r} exists already{known_as}; choose another name.")
    _factories[name] = factory


def _same_function(one: ScheduleFactory, other: ScheduleFactory) -> bool:
    """Whether two objects are one function, or come from one definition that ran twice; lambdas have no name."""
    origins = [(getattr(item, "__module__", None), getattr(item, "__qualname__", None)) for item in (one, other)]
    is_named = origins[0][1] is not None and "<lambda>" not in origins[0][1]
    return one is other or (is_named and origins[0] == origins[1])


def schedule_names() -> list[str]:
    """Every name that get_schedule knows; the user's own come last."""
    return [*SCHEDULES, *_factories]


def user_factory(name: str) -> ScheduleFactory | None:
    """The factory that a user registered under `name`; None for a name of this package, UserError if unknown."""
    if name not in SCHEDULES and name not in _factories:
        raise UserError(
            f"unknown schedule {name!r}{did_you_mean(name, schedule_names())} "
            f"Choose one of {', '.join(schedule_names())}."
        )
    return _factories.get(name)


def resolve_options(name: str, given: dict[str, Any]) -> ScheduleOptions:
    """The options of schedule `name`: its defaults, replaced by those that are `given`."""
    return ScheduleOptions.resolve(name, SCHEDULES[name].defaults, given)


def takes_length_from_beta2(name: str, given: dict[str, Any]) -> bool:
    """Whether the warmup of schedule `name` is 2 / (1 - beta2) updates long, so that nobody gives its length.

    >>> takes_length_from_beta2("gi_warmup", {}), takes_length_from_beta2("noam", {"warmup_shape": "radam"})
    (True, True)
    >>> takes_length_from_beta2("noam", {})
    False
    """
    if name not in SCHEDULES:
        return False
    chosen = {**SCHEDULES[name].defaults, **given}.get("warmup_shape")
    return chosen in [known for known, shape in WARMUP_SHAPES.items() if shape.from_beta2]


def get_schedule(
    name: str, *, peak_lr: float, num_warmup_steps: int | None, num_training_steps: int | None, **options: Any
) -> Schedule:
    """The schedule `name` as a pure function: 0-based index of the update -> learning rate.

    With eta = `peak_lr`, T_w = `num_warmup_steps` and T = `num_training_steps`, both in optimizer updates: update 0
    runs at the start (0 only if you ask for it), update T_w at exactly eta, and from T on the value stays. The warmups
    of noam and beta2 count from 1, as their papers do: update 0 is the first of T_w steps up, and the warmup ends at
    update T_w - 1. There noam and untuned_linear are at eta; the other warmups of beta2 come near eta and never reach
    it. The formula and the source of each name are in `hfwarmup.schedules.named.SCHEDULES`. A plateau is shown as if
    the metric never stalled.

    Args:
        name: a key of SCHEDULES, or a name that was registered.
        peak_lr: the highest learning rate, per update.
        num_warmup_steps: updates to the peak; None or 0 for the names that take it from beta2.
        num_training_steps: updates of the run; may be None for decays that have no end.
        **options: fields of ScheduleOptions.

    Raises:
        UserError: one line with what is wrong, its value and the remedy.

    >>> schedule = get_schedule("warmup_cosine", peak_lr=1e-3, num_warmup_steps=100, num_training_steps=1000)
    >>> [f"{schedule(t):.3g}" for t in (0, 50, 100, 550, 1000, 5000)]
    ['1e-07', '0.0005', '0.001', '0.00055', '0.0001', '0.0001']
    """
    if isinstance(peak_lr, bool) or not 0.0 <= peak_lr < float("inf"):
        raise UserError(f"peak_lr={peak_lr}: give a finite learning rate, 0 or more.")
    if (factory := user_factory(name)) is not None:
        return factory(
            peak_lr=peak_lr, num_warmup_steps=num_warmup_steps, num_training_steps=num_training_steps, **options
        )
    curve = compile_curve(resolve_options(name, options), warmup_steps=num_warmup_steps, total_steps=num_training_steps)
    learning_rates = curve.bind([curve.levels(peak_lr)])

    def schedule(step: int) -> float:
        if step < 0:
            raise UserError(f"step={step}: updates are counted from 0.")
        return learning_rates(step)[0]

    return schedule
