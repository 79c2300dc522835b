"""A user's mistake: one exception, suggestions for misspelt words, and the checks that all parts share."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any


class UserError(ValueError):
    """A mistake that the user can correct: each finding is one line with what is wrong, the value and the remedy.

    >>> UserError("warmup=-1: give 0 or more.", "seed='x': give a whole number.").findings
    ('warmup=-1: give 0 or more.', "seed='x': give a whole number.")
    """

    def __init__(self, *findings: str) -> None:
        self.findings = findings
        super().__init__("\n".join(findings))


class RunStopped(UserError, RuntimeError):
    """The run was stopped, because it no longer follows its plan."""


class NonFiniteError(UserError, FloatingPointError):
    """The run was stopped, because a loss or a gradient is not finite."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `word`: the nearest known word as a question, or only a full stop.

    >>> did_you_mean("warmpu", ["warmup", "decay"]), did_you_mean("zzz", ["warmup"])
    ("; did you mean 'warmup'?", '.')
    """
    near = nearest(word, known)
    return "." if near is None else f"; did you mean {near!r}?"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one probably means; None if no word is near.

    >>> nearest("warmpu", ["warmup", "decay"])
    'warmup'
    """
    import difflib  # only an error needs it

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise UserError unless `value` is one of `choices`.

    >>> check_choice("decay", "cosin", ("cosine", "linear"))
    Traceback (most recent call last):
    hfwarmup.errors.UserError: decay='cosin'; did you mean 'cosine'? Choose one of cosine, linear.
    """
    if value not in tuple(choices):  # a list or a map of a config has no hash
        raise UserError(unknown_choice(name, value, choices))


def unknown_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """What to say of a value that is not among the `choices`.

    >>> unknown_choice("mode", "mix", ("min", "max"))
    "mode='mix'; did you mean 'min'? Choose one of min, max."
    """
    return f"{name}={value!r}{did_you_mean(str(value), choices)} Choose one of {', '.join(choices)}."


def check_number(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
    whole: bool = False,
) -> None:
    """Raise UserError unless `value` is None or a finite number from `low` to `high`.

    With `above` it must not equal `low`, with `below` not `high`; `whole` asks for a whole number.

    >>> check_number("factor", 2, low=0, high=1, below=True)
    Traceback (most recent call last):
    hfwarmup.errors.UserError: factor=2: give a number from 0 to below 1.
    """
    if value is None:
        return
    kind = "whole number" if whole else "number"
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if (
        not is_number
        or not math.isfinite(value)
        or not low <= value <= high
        or (above and value == low)
        or (below and value == high)
    ):
        lower = f"{'above' if above else 'from'} {low}"
        upper = "" if high == math.inf else f" {'to below' if below else 'to'} {high}"
        interval = f"between {low} and {high}" if above and below else lower + upper
        raise UserError(f"{name}={value!r}: give a {kind} {interval}.")
