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
from hfwarmup.trainer.compat import is_schedule, restore_names
from hfwarmup.trainer.planning import plan_of
from hfwarmup.trainer.running import is_rank_zero, own_scheduler, schedule_name

logger = logging.getLogger(__name__)


class WarmupCallback(TrainerCallback):
    """Watches over a schedule of this package in any Trainer; `register()` gives one to every Trainer.

    It logs the schedule once, passes the metric to a plateau, and compares the learning rate of each update with the
    schedule's. A run that is resumed without its scheduler's state does not warm up a second time. In a Trainer that
    runs another scheduler it does nothing.
    """

    def __init__(self) -> None:
        self._mismatch_reported = False
        self._seen_metrics: set[str] = set()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Register the names in a process that opens a pickled Trainer."""
        from hfwarmup.trainer.registration import register  # which imports this module

        register()
        self.__dict__.update(state)

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check the name and its options before transformers does, whose errors take many lines."""
        name = schedule_name(args)
        if not is_schedule(name):
            raise UserError(
                f"lr_scheduler_type={name!r} is not registered; call hfwarmup.register({name!r}, factory) first."
            )
        restore_names(args)
        if name in schedule_names() and args.lr_scheduler_kwargs is not None:
            args.lr_scheduler_kwargs = read_map("lr_scheduler_kwargs", args.lr_scheduler_kwargs)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        scheduler = own_scheduler(kwargs)
        if scheduler is None:
            _warn_if_replaced(args, kwargs["lr_scheduler"])
            return
        self._mismatch_reported, self._seen_metrics = False, set()
        if state.global_step > 0 and scheduler.last_epoch == 0 and not scheduler.is_resumed:
            _continue_without_state(scheduler, state.global_step)
        if isinstance(scheduler.after, ReduceLROnPlateau) and args.eval_strategy == "no":
            raise UserError(
                f"schedule {scheduler.spec.name!r} needs evaluations; set eval_strategy to 'steps' or 'epoch'."
            )
        planned = () if (plan := plan_of(args)) is None else plan.reasons
        if is_rank_zero() and scheduler.spec.summary() not in planned:  # a recipe has already shown its plan
            logger.info("%s", describe(scheduler))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop if no evaluation had the metric; several evaluation sets come one by one, so check after all of them."""
        scheduler = own_scheduler(kwargs)
        if scheduler is not None and self._seen_metrics and _metric_key(scheduler) not in self._seen_metrics:
            raise UserError(
                f"metric={scheduler.spec.resolved.metric!r} is in no evaluation; choose one of "
                f"{', '.join(sorted(self._seen_metrics))}."
            )

    on_train_end = on_step_begin

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
        metrics, key = kwargs["metrics"], _metric_key(scheduler)
        self._seen_metrics |= {name for name in metrics if name.startswith("eval_")}
        if key in metrics:
            scheduler.observe_metric(_same_on_all_ranks(float(metrics[key])))

    def _report_mismatch(self, scheduler: WarmupScheduler, step: int, planned: list[Any], applied: list[Any]) -> None:
        index = next((i for i, (a, p) in enumerate(zip(applied, planned, strict=False)) if a != p), 0)
        message = (
            f"update {step} used learning rate {float(applied[index])!r}, but schedule {scheduler.spec.name!r} says "
            f"{float(planned[index])!r} (parameter group {index}); look for a second scheduler, a callback or a "
            "DeepSpeed config that sets it."
        )
        if scheduler.on_lr_mismatch == "error":
            raise RunStopped(message)
        self._mismatch_reported = True
        if is_rank_zero():
            logger.warning("%s", message)


def describe(scheduler: WarmupScheduler) -> str:
    """One line on what a scheduler will do: name, first learning rate, peak and when, last learning rate."""
    groups = len(scheduler.spec.peak_lrs)
    return scheduler.spec.summary() + (f" ({groups} parameter groups)" if groups > 1 else "")


def _metric_key(scheduler: WarmupScheduler) -> str:
    """The key of a plateau's metric among those of an evaluation."""
    return f"eval_{scheduler.spec.resolved.metric.removeprefix('eval_')}"


def _warn_if_replaced(args: TrainingArguments, lr_scheduler: LRScheduler | None) -> None:
    name = schedule_name(args)
    if name in schedule_names() and is_rank_zero():
        logger.warning(
            "lr_scheduler_type=%s is not used, because %s replaces it; remove the scheduler from the DeepSpeed config "
            "or from the Trainer's `optimizers`.",
            name,
            type(lr_scheduler).__name__,
        )


def _continue_without_state(scheduler: WarmupScheduler, step: int) -> None:
    """Move a scheduler whose checkpoint has no state for it to the run's update `step`, if the user allows that.

    Raises:
        UserError: on_schedule_change is not `config`, or what follows the peak has a state that is lost.
    """
    lost = (
        f"the checkpoint at update {step} was saved without the scheduler's state (save_only_model?), so resuming "
        "would repeat the warmup; start a new run from its weights"
    )
    if scheduler.after is not None:
        raise UserError(f"{lost}.")
    if scheduler.on_schedule_change != "config":
        raise UserError(f"{lost}, or pass on_schedule_change=config to continue at update {step}.")
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": step})
    if is_rank_zero():
        logger.warning(
            "on_schedule_change=config: the checkpoint was saved without the scheduler's state; the schedule continues "
            "at update %d, at learning rate %g, and the optimizer's moments start again",
            step,
            float(scheduler.get_last_lr()[0]),
        )


def _same_on_all_ranks(metric: float) -> float:
    """Rank 0's value: metrics that differ in the last bit must not give the ranks different learning rates."""
    if not dist.is_initialized():
        return metric
    values = [metric]
    dist.broadcast_object_list(values, src=0)
    return values[0]
