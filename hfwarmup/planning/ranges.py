"""The values that a plan is made of: the kind of each, and what a number may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

from hfwarmup.errors import UserError


class Range(NamedTuple):
    """What a number may be."""

    holds: Callable[[Any], bool]
    """whether a number is in it"""
    remedy: str
    """what to give instead of one that is not"""


COUNT = Range(lambda value: 1 <= value < math.inf and value == int(value), "give a whole number, 1 or more.")
ABOVE_ZERO = Range(lambda value: 0 < value < math.inf, "give a number above 0.")
LEARNING_RATE = Range(lambda value: 0 <= value < math.inf, "give a finite learning rate, 0 or more.")
SHARE = Range(lambda value: 0 < value <= 1, "give a share of the run above 0 and at most 1.")

RANGES = {
    "learning_rate": LEARNING_RATE,
    "warmup_steps": Range(
        lambda value: 0 <= value < math.inf, "give a number of updates, 0 or more, or below 1 a share of the run."
    ),
    "reference_batch_size": COUNT,
    "target_batch_size": COUNT,
    "max_warmup_fraction": SHARE,
    "per_device_train_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "max_steps": Range(
        lambda value: -1 <= value < math.inf and value == int(value),
        "give a whole number of updates, or -1 for a run of num_train_epochs.",
    ),
    "num_train_epochs": Range(lambda value: 0 < value < math.inf, "give a number of epochs above 0, or max_steps."),
    "adam_beta2": Range(lambda value: 0 <= value < 1, "give a number from 0 up to, not including, 1."),
    "noise_scale_samples": ABOVE_ZERO,
    "tokens_per_sample": ABOVE_ZERO,
}
"""Setting -> what it may be."""

KINDS: dict[str, tuple[type, str]] = {
    "lr_scaling": (str, "give a name: linear, sqrt or none."),
    "warmup_scaling": (str, "give a name: linear, constant_samples, constant_steps or sqrt."),
    "lr_scheduler_type": (str, "give a schedule's name; see hfwarmup list."),
    "optim": (str, "give an optimizer's name."),
    "lr_scheduler_kwargs": (dict, "give a map."),
    "dataloader_drop_last": (bool, "give true or false."),
}
"""Setting that is no number -> its type, and what to give instead of another."""


def kind_mistakes(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that are of a wrong kind and so can be compared with nothing, each with one line.

    >>> kind_mistakes({"optim": "sgd", "dataloader_drop_last": "perhaps"})
    [('dataloader_drop_last', 'dataloader_drop_last=perhaps: give true or false.')]
    """
    return [
        (name, f"{name}={settings[name]}: {remedy}")
        for name, (kind, remedy) in KINDS.items()
        if name in settings and not isinstance(settings[name], kind)
    ]


def range_mistakes(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that are not in their range, each with one line; epochs count where there is no `max_steps`.

    >>> range_mistakes({"learning_rate": -1, "max_steps": 10, "num_train_epochs": -1})
    [('learning_rate', 'learning_rate=-1: give a finite learning rate, 0 or more.')]
    """
    findings = {name: outside(name, settings.get(name), allowed) for name, allowed in RANGES.items()}
    if findings["max_steps"] is None and settings.get("max_steps", 0) > 0:
        del findings["num_train_epochs"]
    return [(name, finding) for name, finding in findings.items() if finding is not None]


def outside(name: str, value: Any, allowed: Range) -> str | None:
    """One line on a value that is no number or not in its range; None for one that is, and for None: not given.

    >>> outside("total_steps", 0, COUNT)
    'total_steps=0: give a whole number, 1 or more.'
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if value is None or (is_number and allowed.holds(value)):
        return None
    return f"{name}={value}: {allowed.remedy}"


def check_range(name: str, value: Any, allowed: Range) -> None:
    """Raise ValueError where `outside` has something to say.

    >>> check_range("num_processes", 0, COUNT)
    Traceback (most recent call last):
    hfwarmup.errors.UserError: num_processes=0: give a whole number, 1 or more.
    """
    if (finding := outside(name, value, allowed)) is not None:
        raise UserError(finding)
