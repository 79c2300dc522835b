"""The values that a number may have: those of a plan, and those of TrainingArguments that would end a run later."""

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


def _is_whole(value: Any) -> bool:
    return math.isfinite(value) and value == int(value)


COUNT = Range(lambda value: value >= 1 and _is_whole(value), "give a whole number, 1 or more.")
NOT_NEGATIVE = Range(lambda value: 0 <= value < math.inf, "give a number, 0 or more.")
WHOLE_NOT_NEGATIVE = Range(lambda value: value >= 0 and _is_whole(value), "give a whole number, 0 or more.")
ABOVE_ZERO = Range(lambda value: 0 < value < math.inf, "give a number above 0.")
LEARNING_RATE = Range(lambda value: 0 <= value < math.inf, "give a finite learning rate, 0 or more.")
SHARE = Range(lambda value: 0 < value <= 1, "give a share of the run above 0 and at most 1.")
BETA = Range(lambda value: 0 <= value < 1, "give a number from 0 up to, not including, 1.")
SEED = Range(lambda value: 0 <= value < 2**32 and _is_whole(value), "give a whole number from 0 to 2^32 - 1.")
INTERVAL = Range(
    lambda value: 0 < value < 1 or (value >= 1 and _is_whole(value)),
    "give a whole number of updates, 1 or more, or below 1 a share of the run.",
)

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
        lambda value: value >= -1 and _is_whole(value),
        "give a whole number of updates, or -1 for a run of num_train_epochs.",
    ),
    "num_train_epochs": Range(lambda value: 0 < value < math.inf, "give a number of epochs above 0, or max_steps."),
    "adam_beta2": BETA,
    "noise_scale_samples": ABOVE_ZERO,
    "tokens_per_sample": ABOVE_ZERO,
    # of the data
    "validation_fraction": Range(lambda value: 0 < value < 1, "give a share between 0 and 1, for example 0.05."),
    "vocab_size": Range(
        lambda value: value >= 257 and _is_whole(value), "give 257 or more: 256 bytes and <|endoftext|>."
    ),
    "block_size": Range(
        lambda value: value >= 2 and _is_whole(value), "give 2 tokens or more: the first one is not predicted."
    ),
    "tokenize_workers": WHOLE_NOT_NEGATIVE,
    # of TrainingArguments and its subclasses, beside the plan's
    "per_device_eval_batch_size": COUNT,
    "seed": SEED,
    "data_seed": SEED,
    "adam_beta1": BETA,
    "adam_epsilon": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "label_smoothing_factor": Range(lambda value: 0 <= value < 1, "give a share from 0 to below 1."),
    "neftune_noise_alpha": NOT_NEGATIVE,
    "logging_steps": INTERVAL,
    "eval_steps": INTERVAL,
    "save_steps": INTERVAL,
    "eval_delay": NOT_NEGATIVE,
    "save_total_limit": COUNT,
    "eval_accumulation_steps": COUNT,
    "torch_empty_cache_steps": COUNT,
    "dataloader_num_workers": WHOLE_NOT_NEGATIVE,
    "dataloader_prefetch_factor": COUNT,
    "ddp_timeout": COUNT,
    "ddp_bucket_cap_mb": COUNT,
    "generation_max_length": COUNT,
    "generation_num_beams": COUNT,
    "dataset_num_proc": COUNT,
}
"""Setting -> what it may be."""


def range_mistakes(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that are not in their range, each with one line; epochs count where there is no `max_steps`.

    >>> range_mistakes({"learning_rate": -1, "max_steps": 10, "num_train_epochs": -1})
    [('learning_rate', 'learning_rate=-1: give a finite learning rate, 0 or more.')]
    """
    findings = {name: outside(name, settings.get(name), allowed) for name, allowed in RANGES.items()}
    max_steps = settings.get("max_steps")
    if findings["max_steps"] is None and max_steps is not None and max_steps > 0:
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
    """Raise UserError where `outside` has something to say.

    >>> check_range("num_processes", 0, COUNT)
    Traceback (most recent call last):
    hfwarmup.errors.UserError: num_processes=0: give a whole number, 1 or more.
    """
    if (finding := outside(name, value, allowed)) is not None:
        raise UserError(finding)
