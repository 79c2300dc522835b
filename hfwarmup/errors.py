"""A user's mistake: one exception, suggestions for misspelt words, and the checks that all parts share."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import KW_ONLY, dataclass
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

    def report(self, start: str = "error") -> str:
        """What to print: each finding on its line, after the word that starts it.

        >>> UserError("warmup=-1: give 0 or more.").report()
        'error: warmup=-1: give 0 or more.'
        """
        return "\n".join(f"{start}: {finding}" for finding in self.findings)


class RunStopped(UserError, RuntimeError):
    """The run was stopped, because it no longer follows its plan."""


class NonFiniteError(UserError, FloatingPointError):
    """The run was stopped, because a loss or a gradient is not finite."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `word`: the nearest known word as a question, or only a full stop.

    >>> did_you_mean("warmpu", ["warmup", "decay"]), did_you_mean("zzz", ["warmup"])
    ("; did you mean 'warmup'?", '.')
    """
    import difflib  # only an error needs it

    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


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
    return f"{name}={value!r}{did_you_mean(value, choices)} Choose one of {', '.join(choices)}."


@dataclass(frozen=True)
class Range:
    """The numbers that are allowed somewhere.

    >>> Range(1, whole=True).check("num_processes", 0)
    Traceback (most recent call last):
    hfwarmup.errors.UserError: num_processes=0: give a whole number, 1 or more.
    """

    low: float
    """the smallest number"""
    high: float = math.inf
    """the largest number; a number is finite without it too"""
    _: KW_ONLY
    above: bool = False
    """whether `low` itself is not allowed"""
    below: bool = False
    """whether `high` itself is not allowed"""
    whole: bool = False
    """whether only whole numbers are allowed"""
    shares: bool = False
    """whether it may be a float: a whole one, or below 1 a share"""
    remedy: str = ""
    """what a message says instead of the bounds"""

    def mistake(self, name: str, value: Any) -> str | None:
        """One line on a value that is not allowed; None for one that is, and for None, which means: not given.

        >>> Range(0, 1, below=True).mistake("factor", 2)
        'factor=2: give a number from 0 to below 1.'
        """
        if value is None or (isinstance(value, Real) and not isinstance(value, bool) and self._holds(value)):
            return None
        return f"{name}={value!r}: give {self.remedy or self._in_words()}."

    def check(self, name: str, value: Any) -> None:
        """Raise UserError where `mistake` finds one."""
        if (mistake := self.mistake(name, value)) is not None:
            raise UserError(mistake)

    def _holds(self, value: Any) -> bool:
        return (
            math.isfinite(value)
            and self.low <= value <= self.high
            and not (self.above and value == self.low)
            and not (self.below and value == self.high)
            and (not self.whole or isinstance(value, Integral) or (self.shares and (value < 1 or value == int(value))))
        )

    def _in_words(self) -> str:
        number = "a whole number" if self.whole else "a number"
        if self.high == math.inf:
            return f"{number} above {self.low}" if self.above else f"{number}, {self.low} or more"
        if self.above and self.below:
            return f"{number} between {self.low} and {self.high}"
        start, end = "above" if self.above else "from", "to below" if self.below else "to"
        return f"{number} {start} {self.low} {end} {self.high}"
