"""What a measurement of the monitor is: a Probe, which is called around an update and reads a Moment of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from transformers import TrainerState, TrainingArguments


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a probe can read when it is called."""

    model: nn.Module
    """The model that trains, inside its wrapper where it has one."""
    optimizer: Optimizer
    """The torch optimizer, without accelerate's wrapper."""
    args: TrainingArguments
    state: TrainerState
    """Its `global_step` counts finished updates: the update that is measured is counted in `values`, not before."""
    dataloader: DataLoader
    """The Trainer's training data."""
    micro_batches: int
    """Micro-batches of the update that this process has begun."""
    marked: bool
    """Whether this update's values will be logged."""


class Probe:
    """A measurement of the monitor; a subclass overrides the methods that it needs.

    The monitor makes one object of each probe. When a run begins it calls `resume` and `begin`. At each marked update
    it calls `before_gradients`, `before_update`, `after_update` and `values`, in this order, on every rank. A probe
    leaves weights, gradients, modes and random states as they were; `measuring.preserving_state` helps with that.
    """

    at_powers_of_two: ClassVar[bool] = False
    """Whether `before_gradients`, `before_update` and `after_update` are also called for the updates 1, 2, 4, 8, …"""

    def resume(self, past: Sequence[Mapping[str, float]]) -> None:
        """Take up what was logged before: one mapping a marked update, with the names of `values`; empty at a start."""

    def begin(self, moment: Moment) -> None:
        """Prepare for the first update of a run, or the first one after a resume."""

    def before_gradients(self, moment: Moment) -> None:
        """Before the first forward pass of an update."""

    def before_update(self, moment: Moment) -> None:
        """Before the optimizer's step; the gradients are complete and clipped."""

    def after_update(self, moment: Moment) -> None:
        """After the optimizer's step, with the same gradients."""

    def values(self, moment: Moment) -> dict[str, float]:
        """What this update's log entry gets, by name without `warmup/`; the entry is `moment.state.log_history[-1]`."""
        return {}
