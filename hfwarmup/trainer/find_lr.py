"""Runs a recipe up to its first update, measures learning rates there, and stops it; no file is left."""

from __future__ import annotations

import runpy
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.errors import UserError
from hfwarmup.measuring.critical_lr import CriticalLr
from hfwarmup.measuring.direction import copy_optimizer, trained_parameters
from hfwarmup.measuring.preserving_state import preserving_state
from hfwarmup.measuring.range_test import RangeTest, lr_range_test
from hfwarmup.planning.recipe_files import facts_of
from hfwarmup.trainer.compat import every_trainer_has
from hfwarmup.trainer.first_batches import FirstBatches, NothingToMeasureError
from hfwarmup.trainer.first_update import measure_critical_lr, peaks_of, unwrapped
from hfwarmup.trainer.registration import register
from hfwarmup.trainer.running import own_scheduler

RANGE_FACTORS = (1e-3, 1e2)
"""Ends of the range test relative to the peak."""


@dataclass(frozen=True, kw_only=True)
class FoundLr:
    """What was measured just before a run's first update."""

    critical: CriticalLr
    """along the optimizer's first step, on one batch"""
    range_test: RangeTest | None
    """Smith's range test; None if it was not asked for"""
    peak_lr: float
    """of the plan, in the group that has the highest"""
    warmup_steps: int
    """of the plan; 0 if the schedule is not one of hfwarmup's"""
    optimizer: str
    """the name of its class"""


class _Measured(BaseException):
    """Ends the recipe from inside. It is no Exception, so that no `except Exception` catches it."""

    def __init__(self, found: FoundLr) -> None:
        self.found = found


def find_lr(script: Path, words: Sequence[str], *, range_updates: int) -> FoundLr:
    """Run a recipe's `script` with the command line `words` up to its first update, and measure there.

    It runs in this process, on one device, with a temporary folder for its output. A range test of `range_updates`
    updates follows on the same weights; 0 leaves it out.

    Raises:
        UserError: the script declares that it trains without a Trainer, it ended before a Trainer trained, or the
            loss of a batch cannot be measured.
    """
    if not facts_of(script).trainer:
        raise UserError(f"{script}: find-lr measures in a Trainer, but this script trains without one.")
    register()
    with tempfile.TemporaryDirectory() as folder, every_trainer_has(_finder(range_updates)):
        ours = ["--output_dir", folder, "--report_to", "none", "--torch_compile", "false", "--resume", "never"]
        before = sys.argv, list(sys.path)
        sys.argv, sys.path[:0] = [str(script), *words, *ours], [str(script.parent)]
        try:
            runpy.run_path(str(script), run_name="__main__")
        except _Measured as measured:
            return measured.found
        except NothingToMeasureError as error:
            raise UserError(f"{script}: {error}; find-lr cannot measure here.") from error
        finally:
            sys.argv, sys.path[:] = before
    raise UserError(f"{script}: the script ended before a Trainer trained, so nothing was measured.")


def _finder(range_updates: int) -> type[TrainerCallback]:
    class Finder(TrainerCallback):
        """Measures when the training begins, and ends it."""

        def on_train_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            model, optimizer, scheduler = kwargs["model"], unwrapped(kwargs["optimizer"]), own_scheduler(kwargs)
            batches = FirstBatches(model, kwargs["train_dataloader"], args, state, count=max(1, range_updates))
            raise _Measured(
                FoundLr(
                    critical=measure_critical_lr(model, optimizer, batches),
                    range_test=run_range_test(model, optimizer, batches) if range_updates else None,
                    peak_lr=max(peaks_of(optimizer)),
                    warmup_steps=0 if scheduler is None else scheduler.spec.warmup_steps,
                    optimizer=type(optimizer).__name__,
                )
            )

    return Finder


def run_range_test(model: nn.Module, optimizer: Optimizer, batches: FirstBatches) -> RangeTest:
    """Smith's range test around the peak, one update for each batch, with a copy of the optimizer.

    The weights are restored.
    """
    parameters, peaks = trained_parameters(optimizer), peaks_of(optimizer)
    copied = copy_optimizer(optimizer, share_parameters=True)
    weights = [parameter.detach().clone() for parameter in parameters]
    indices = iter(range(batches.count))

    def update_at(lr: float) -> float:
        index = next(indices)
        for group, peak in zip(copied.param_groups, peaks, strict=True):
            group["lr"] = torch.full_like(group["lr"], lr) if isinstance(group["lr"], torch.Tensor) else lr
            group["lr"] *= peak / max(peaks)
        loss = batches.mean_loss(index)
        batches.write_gradients(index, parameters)
        copied.step()
        return loss

    low, high = (factor * max(peaks) for factor in RANGE_FACTORS)
    with preserving_state(model):
        try:
            return lr_range_test(update_at, low=low, high=high, updates=batches.count)
        finally:
            with torch.no_grad():
                for parameter, weight in zip(parameters, weights, strict=True):
                    parameter.copy_(weight)
