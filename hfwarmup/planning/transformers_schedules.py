"""The schedules of transformers itself: batch, peak and warmup are planned, the curve is its own matter."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from hfwarmup.errors import UserError, did_you_mean

_PLATEAU = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps")
_GREEDY = (*_PLATEAU, "warmup", "verbose", "max_lr", "smooth", "window_size", "reset_start")

TRANSFORMERS_SCHEDULES: dict[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": ("timescale",),
    "reduce_lr_on_plateau": _PLATEAU,
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "warmup_stable_decay": (
        "num_decay_steps",
        "num_stable_steps",
        "warmup_type",
        "decay_type",
        "min_lr_ratio",
        "num_cycles",
    ),
    "greedy": _GREEDY,
}
"""Name -> the options that its function takes in lr_scheduler_kwargs; a test compares them with the installed ones."""

_REQUIRED = {"cosine_with_min_lr": ("min_lr", "min_lr_rate"), "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate")}
"""Name -> the options of which just one must be given."""
_TEXTS = {"mode", "threshold_mode", "warmup_type", "decay_type"}
_TRUTHS = {"verbose", "smooth"}


def check_transformers_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise UserError for options that the function of a schedule of transformers does not take, or lacks.

    >>> check_transformers_options("cosine", {"final_ratio": 0.1})
    Traceback (most recent call last):
    hfwarmup.errors.UserError: 'cosine' of transformers has no option 'final_ratio'. It takes num_cycles; \
warmup_cosine of hfwarmup takes more.
    """
    known = TRANSFORMERS_SCHEDULES[name]
    takes = f"It takes {', '.join(known)}" if known else "It takes none"
    for option, value in options.items():
        if option not in known:
            hint = did_you_mean(option, known)
            ours = "" if hint != "." else "; warmup_cosine of hfwarmup takes more"
            raise UserError(f"{name!r} of transformers has no option {option!r}{hint} {takes}{ours}.")
        kind, expected = (
            (str, "text") if option in _TEXTS else (bool, "true or false") if option in _TRUTHS else (Real, "a number")
        )
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise UserError(f"lr_scheduler_kwargs: {option}={value!r}: give {expected}.")
    if (choice := _REQUIRED.get(name)) and sum(options.get(option) is not None for option in choice) != 1:
        raise UserError(f"{name!r} of transformers needs one of {' and '.join(choice)} in lr_scheduler_kwargs.")
    if name == "warmup_stable_decay" and options.get("num_decay_steps") is None:
        raise UserError(f"{name!r} of transformers needs num_decay_steps in lr_scheduler_kwargs; warmup_wsd does not.")
