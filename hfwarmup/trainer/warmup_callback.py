"""Watches over a schedule of this package in any Trainer."""

from __future__ import annotations

import logging
from typing import Any

import torch.distributed as dist
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.errors import RunStopped, UserError
from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.planning.values import read_map
from hfwarmup.schedules.named import schedule_names
from hfwarmup.trainer.planning import plan_of
from hfwarmup.trainer.running import is_rank_zero, own_scheduler

logger = logging.getLogger(__name__)


class WarmupCallback(TrainerCallback):
    """Watches over a schedule of this package in any Trainer; `register()` gives one to every Trainer.

    It logs the schedule once, gives a plateau its metric, compares the learning rate of each update with the
    schedule's, and lets no run that is resumed without its scheduler's state warm up a second time. It does nothing in
    a Trainer that runs another scheduler.
    """

    def __init__(self) -> None:
        self._mismatch_reported = False
        self._unmatched_metrics: list[str] = []
        self._metric_found = False

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Options that are no map are one line here; transformers would unpack them into a TypeError."""
        name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        if name in schedule_names() and args.lr_scheduler_kwargs is not None:
            args.lr_scheduler_kwargs = read_map("lr_scheduler_kwargs", args.lr_scheduler_kwargs)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        scheduler = own_scheduler(kwargs)
        if scheduler is None:
            self._check_replaced(args, kwargs["lr_scheduler"])
            return
        self._mismatch_reported = False
        if state.global_step > 0 and scheduler.last_epoch == 0 and not scheduler.is_resumed:
            _go_on_without_state(scheduler, state.global_step)
        if isinstance(scheduler.after, ReduceLROnPlateau) and args.eval_strategy == "no":
            raise UserError(
                f"schedule {scheduler.spec.name!r} listens to an evaluation; set eval_strategy to 'steps' or 'epoch'."
            )
        planned = () if (plan := plan_of(args)) is None else plan.reasons
        if is_rank_zero() and scheduler.spec.summary() not in planned:  # a recipe has shown its plan
            logger.info("%s", describe(scheduler))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._check_metric_found(own_scheduler(kwargs))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._check_metric_found(own_scheduler(kwargs))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        scheduler = own_scheduler(kwargs)
        if scheduler is None or self._mismatch_reported:
            return
        planned = scheduler.get_last_lr()
        applied = [group["lr"] for group in kwargs["optimizer"].param_groups]
        if applied != planned:
            self._report_mismatch(scheduler, state.global_step, planned, applied)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        scheduler = own_scheduler(kwargs)
        if scheduler is None or not isinstance(scheduler.after, ReduceLROnPlateau):
            return
        metrics, name = kwargs["metrics"], scheduler.spec.resolved.metric
        key = name if name.startswith("eval_") else f"eval_{name}"
        if key in metrics:
            scheduler.observe_metric(_same_on_all_ranks(float(metrics[key])))
            self._metric_found = True
        else:
            self._unmatched_metrics += (name for name in metrics if name.startswith("eval_"))

    def _check_metric_found(self, scheduler: WarmupScheduler | None) -> None:
        """Several evaluation sets are evaluated one by one, so a missing metric is judged when all of them are done."""
        if scheduler is not None and self._unmatched_metrics and not self._metric_found:
            available = ", ".join(sorted(set(self._unmatched_metrics)))
            raise UserError(
                f"metric={scheduler.spec.resolved.metric!r} is in no evaluation; choose one of {available}."
            )

    def _check_replaced(self, args: TrainingArguments, lr_scheduler: LRScheduler | None) -> None:
        name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        if name in schedule_names() and is_rank_zero():
            logger.warning(
                "lr_scheduler_type=%s does not run: %s took its place; remove the scheduler from the DeepSpeed config "
                "or from the Trainer's `optimizers`.",
                name,
                type(lr_scheduler).__name__,
            )

    def _report_mismatch(self, scheduler: WarmupScheduler, step: int, planned: list[Any], applied: list[Any]) -> None:
        index = next((i for i, (a, p) in enumerate(zip(applied, planned, strict=False)) if a != p), 0)
        message = (
            f"update {step} ran at learning rate {float(applied[index])!r}, the schedule {scheduler.spec.name!r} says "
            f"{float(planned[index])!r} (parameter group {index}): something else set it; look for a "
            "second scheduler, a callback or a DeepSpeed config."
        )
        if scheduler.on_lr_mismatch == "error":
            raise RunStopped(message)
        self._mismatch_reported = True
        if is_rank_zero():
            logger.warning("%s", message)


def _go_on_without_state(scheduler: WarmupScheduler, step: int) -> None:
    """Put a scheduler whose state was in no checkpoint at the run's update `step`, under on_schedule_change=config.

    Raises ValueError under another policy, and where what comes after the warmup had a state of its own.
    """
    lost = (
        f"the checkpoint at update {step} has no state of the schedule (save_only_model?): the warmup would begin anew"
    )
    restart = "start a new run from its weights"
    if scheduler.after is not None:
        raise UserError(f"{lost}; {restart}.")
    if scheduler.on_schedule_change != "config":
        raise UserError(f"{lost}; {restart}, or pass on_schedule_change=config to go on at update {step}.")
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": step})
    if is_rank_zero():
        logger.warning(
            "on_schedule_change=config: the checkpoint has no state of the schedule; it goes on at update %d, at "
            "learning rate %g, while the optimizer's moments begin anew",
            step,
            float(scheduler.get_last_lr()[0]),
        )


def describe(scheduler: WarmupScheduler) -> str:
    """One line on what a scheduler will do: name, first learning rate, peak and when, last learning rate."""
    groups = len(scheduler.spec.peak_lrs)
    return scheduler.spec.summary() + (f" ({groups} parameter groups)" if groups > 1 else "")


def _same_on_all_ranks(metric: float) -> float:
    """Rank 0's value, so that a metric that differs in its last bit cannot split the learning rates."""
    if not dist.is_initialized():
        return metric
    values = [metric]
    dist.broadcast_object_list(values, src=0)
    return values[0]
