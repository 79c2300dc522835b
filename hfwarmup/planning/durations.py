"""Durations as people say them: "500", "5%", "2 epochs", "100k samples", "20M tokens"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from hfwarmup.errors import UserError, did_you_mean

Unit = Literal["steps", "%", "epochs", "samples", "tokens"]

_UNITS: dict[str, Unit] = {
    "": "steps",
    "step": "steps",
    "steps": "steps",
    "update": "steps",
    "updates": "steps",
    "%": "%",
    "percent": "%",
    "epoch": "epochs",
    "epochs": "epochs",
    "sample": "samples",
    "samples": "samples",
    "token": "tokens",
    "tokens": "tokens",
}
_PREFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
_PATTERN = re.compile(
    r"(?P<number>(?:\d[\d_]*|\d{1,3}(?:,\d{3})+)(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(?P<words>[A-Za-z%\s]*)"
)


@dataclass(frozen=True, kw_only=True)
class Duration:
    """A length of training in one unit. A step is one optimizer update."""

    amount: float
    """how many units"""
    unit: Unit
    """what is counted"""

    def __post_init__(self) -> None:
        if not 0 <= self.amount < math.inf:
            raise UserError(f"amount={self.amount}: give a finite length, 0 or more.")

    def __str__(self) -> str:
        number = f"{self.amount:,.6g}" if self.amount < 10**6 else f"{self.amount:,.0f}"
        unit = self.unit.removesuffix("s") if self.amount == 1 else self.unit
        return f"{number}%" if unit == "%" else f"{number} {unit}"

    def to_steps(
        self,
        *,
        steps_per_epoch: float | None = None,
        batch_size: int | None = None,
        tokens_per_sample: float | None = None,
        total_steps: int | None = None,
    ) -> int:
        """The duration in whole optimizer updates, rounded to the nearest (halves up), at least 1 unless it is 0.

        steps: n · %: n / 100 * `total_steps` · epochs: n * `steps_per_epoch` · samples: n / `batch_size` ·
        tokens: n / (`batch_size` * `tokens_per_sample`), with the global batch in samples.

        Raises UserError when the unit needs a number that was not given.

        >>> parse_duration("100k samples").to_steps(batch_size=256)
        391
        >>> parse_duration("5%").to_steps(total_steps=1000)
        50
        """
        sizes = {
            "steps_per_epoch": steps_per_epoch,
            "batch_size": batch_size,
            "tokens_per_sample": tokens_per_sample,
            "total_steps": total_steps,
        }
        return whole_steps(self.exact_steps(sizes))

    def exact_steps(self, sizes: Mapping[str, float | None]) -> float:
        """`to_steps` before rounding, for lengths that are still to be scaled; `sizes` are its arguments."""
        if self.amount == 0 or self.unit == "steps":
            return self.amount
        if self.unit == "%":
            return self.amount / 100 * self._need(sizes, "total_steps")
        if self.unit == "epochs":
            return self.amount * self._need(sizes, "steps_per_epoch")
        samples = self.amount if self.unit == "samples" else self.amount / self._need(sizes, "tokens_per_sample")
        return samples / self._need(sizes, "batch_size")

    def _need(self, sizes: Mapping[str, float | None], name: str) -> float:
        value = sizes.get(name)
        if value is None or value <= 0:
            raise UserError(
                f"duration '{self}' needs {name} to become steps, and it is {value}; give {name}, or steps."
            )
        return value


def whole_steps(steps: float) -> int:
    """The nearest whole number of updates, halves up; at least 1 unless `steps` is 0.

    >>> whole_steps(2.5), whole_steps(0.2), whole_steps(0.0)
    (3, 1, 0)
    """
    return max(1, math.floor(steps + 0.5)) if steps else 0


def update_steps(
    num_samples: int, *, epochs: float, batch_size: int, num_processes: int, accumulation: int, drop_last: bool
) -> int:
    """Optimizer updates of `epochs` epochs over `num_samples` samples, as a Trainer counts them.

    ceil(epochs x updates an epoch), where every process has the same number of batches and the last update of an epoch
    may accumulate fewer.

    >>> update_steps(1000, epochs=2, batch_size=8, num_processes=4, accumulation=2, drop_last=False)
    32
    """
    if drop_last and num_samples < batch_size * num_processes:
        raise UserError(
            f"{num_samples} samples are less than one batch of {batch_size} for each of {num_processes} processes, and "
            "dataloader_drop_last leaves none; lower the batch, or keep the last one."
        )
    round_up = not drop_last
    batches = _divide(num_samples, batch_size, round_up=round_up)
    batches_per_process = _divide(batches, num_processes, round_up=round_up)
    return math.ceil(epochs * max(1, _divide(batches_per_process, accumulation, round_up=True)))


def parse_duration(text: str | int | float | Duration) -> Duration:
    """A duration from its text: a number, an optional k, M, B or T, and a unit; a whole number alone counts steps.

    Raises UserError for what cannot be read, and for a bare fraction, which transformers reads as a share of the run
    below 1 and as steps from 1 on.

    >>> parse_duration("20M tokens")
    Duration(amount=20000000.0, unit='tokens')
    >>> parse_duration(1.0)
    Traceback (most recent call last):
    hfwarmup.errors.UserError: duration 1.0 can be read as '1 step' or as '100%'; write the one you mean.
    """
    if isinstance(text, Duration):
        return text
    match = _PATTERN.fullmatch(str(text).strip()) if isinstance(text, str | Real) else None
    if match is None:
        raise UserError(f"duration {text!r}: write for example 500, '5%', '2 epochs', '100k samples' or '20M tokens'.")
    prefix, unit_word = _split_words(match["words"])
    if unit_word not in _UNITS:
        known = sorted(word for word in _UNITS if word)
        raise UserError(
            f"duration {text!r} has the unknown unit {unit_word!r}{did_you_mean(unit_word, known)} "
            "Use steps, %, epochs, samples or tokens."
        )
    amount = float(match["number"].replace("_", "").replace(",", "")) * _PREFIXES[prefix]
    if not math.isfinite(amount):
        raise UserError(f"duration {text!r} is not finite; give a number of updates, or a share such as '5%'.")
    unit = _UNITS[unit_word]
    bare = unit_word == "" and prefix == ""
    if bare and (amount != int(amount) or (amount == 1 and not match["number"].isdigit())):
        if amount > 1:
            raise UserError(f"duration {text!r} is no whole number of steps; write for example '{amount:.0f} steps'.")
        steps = "1 step" if amount == 1 else f"{amount:g} of a step"
        raise UserError(
            f"duration {text!r} can be read as '{steps}' or as '{amount * 100:g}%'; write the one you mean."
        )
    if unit == "%" and amount > 100:
        raise UserError(f"duration {text!r} is more than the whole run; give at most 100%.")
    return Duration(amount=amount, unit=unit)


def _split_words(words: str) -> tuple[str, str]:
    """A number's prefix and its unit, in lower case; a unit that begins like a prefix is a unit.

    >>> _split_words("M tokens"), _split_words("Tokens"), _split_words("k")
    (('M', 'tokens'), ('', 'tokens'), ('k', ''))
    """
    unit_word = words.strip().lower()
    if unit_word not in _UNITS and words[0] in _PREFIXES:
        return words[0], unit_word[1:].strip()
    return "", unit_word


def _divide(count: int, size: int, *, round_up: bool) -> int:
    return -(-count // size) if round_up else count // size
