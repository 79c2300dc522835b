"""What is measured on real batches before the first update: GIAdamW's second moment, and `initial_lr: auto`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.errors import UserError
from hfwarmup.measuring.critical_lr import CriticalLr, critical_lr, saved_steps
from hfwarmup.measuring.direction import loss_along, parameters_of, trained_parameters, update_direction
from hfwarmup.measuring.preserving_state import preserving_state
from hfwarmup.optim.gi_adam import GIAdamW
from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.trainer.first_batches import FirstBatches, NothingToMeasureError
from hfwarmup.trainer.running import is_rank_zero, own_scheduler, peak_lrs

logger = logging.getLogger(__name__)

GI_BATCHES = 4
"""Batches whose gradients start GIAdamW's second moment, unless `optim_args: init_batches=N` is given."""
SEARCH_FACTOR = 2.0**20
"""The critical learning rate is searched up to this multiple of the peak."""


class BeforeFirstUpdate(TrainerCallback):
    """Measures what needs a gradient when a run begins; `register()` gives one to every Trainer.

    Weights, buffers, random states and the order of the data stay as they were. A resumed run reads the results from
    its checkpoint and measures nothing. Data that is a stream, or a model whose loss its Trainer computes, cannot be
    measured: then GIAdamW starts from the gradients of its first update, with a warning, and `auto` is an error.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step > 0:
            return
        model, optimizer, scheduler = kwargs["model"], unwrapped(kwargs["optimizer"]), own_scheduler(kwargs)
        make_batches = partial(FirstBatches, model, kwargs["train_dataloader"], args, state)
        if isinstance(optimizer, GIAdamW) and not optimizer.state:
            _start_second_moment(optimizer, model, make_batches, count=_gi_batches(args))
        if scheduler is not None and scheduler.awaits_critical_lr:
            try:
                found = measure_critical_lr(model, optimizer, make_batches())
            except NothingToMeasureError as error:
                raise UserError(f"initial_lr: auto: {error}; give initial_lr a number.") from error
            _start_ramp(scheduler, found)


def measure_critical_lr(model: nn.Module, optimizer: Optimizer, batches: FirstBatches) -> CriticalLr:
    """The critical learning rate of the group with the highest peak: on one batch, along the optimizer's next step.

    The groups' learning rates keep the ratio of their peaks. Gradients are clipped as in training; dropout is off.
    """
    parameters, peaks = parameters_of(optimizer), peaks_of(optimizer)
    with preserving_state(model):
        batches.write_gradients(0, trained_parameters(optimizer))
        direction = update_direction(optimizer, relative_lrs=[peak / max(peaks) for peak in peaks])
        loss_at = loss_along(parameters, direction, lambda: batches.mean_loss(0))
        return critical_lr(loss_at, start=max(peaks), upper=SEARCH_FACTOR * max(peaks))


def peaks_of(optimizer: Optimizer) -> list[float]:
    """The peak learning rate of each group, see `peak_lrs`; UserError if all are 0."""
    peaks = peak_lrs(optimizer)
    if max(peaks) <= 0.0:
        raise UserError("learning_rate=0: the critical learning rate is searched around the peak; set it above 0.")
    return peaks


def unwrapped(optimizer: Any) -> Optimizer:
    """The optimizer inside accelerate's wrapper."""
    inner: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def _start_second_moment(
    optimizer: GIAdamW, model: nn.Module, make_batches: Callable[..., FirstBatches], *, count: int
) -> None:
    try:
        batches = make_batches(count=count)
        with preserving_state(model):
            for index in range(count):
                batches.write_gradients(index, trained_parameters(optimizer))
                optimizer.observe_gradients()
    except NothingToMeasureError as error:
        if is_rank_zero():
            logger.warning("GIAdamW: %s; the second moment starts from the gradients of the first update", error)
        return
    if is_rank_zero():
        logger.info("GIAdamW: the second moment starts from the squared gradients of %d batches", count)


def _gi_batches(args: TrainingArguments) -> int:
    pairs = [pair.split("=") for pair in (args.optim_args or "").replace(" ", "").split(",") if pair]
    given = dict(pairs).get("init_batches", str(GI_BATCHES))
    if not given.isdigit() or int(given) < 1:
        raise UserError(f"optim_args: init_batches={given}: give a whole number of batches, 1 or more.")
    return int(given)


def _start_ramp(scheduler: WarmupScheduler, found: CriticalLr) -> None:
    """Start the ramp at the critical learning rate, and log what that changes."""
    peak_lr, full_steps = max(scheduler.spec.peak_lrs), scheduler.spec.warmup_steps
    scheduler.start_at_critical_lr(found.lr)
    if not is_rank_zero():
        return
    if found.lr == 0.0:
        logger.warning("initial_lr: auto: no tested step lowered the loss; keeping the full warmup")
        return
    line = "initial_lr: auto: critical learning rate %.3g in %d forward passes; warmup %d -> %d updates, %.0f saved"
    saved = saved_steps(found, peak_lr=peak_lr, warmup_steps=full_steps)
    logger.info(line, found.lr, found.forwards, full_steps, scheduler.spec.warmup_steps, saved)
    if found.lr >= peak_lr:
        logger.warning(
            "initial_lr: auto: the critical learning rate %.3g is not below the peak %.3g, so there is no warmup. A "
            "warmup may still help later in the run (docs/predictors.md); it is safer to give initial_lr a number.",
            found.lr,
            peak_lr,
        )
