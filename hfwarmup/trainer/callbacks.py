"""What happens around the updates of a Trainer: checks, the plateau's metric, a plan made again."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.planning.caveats import WITHOUT_WARMUP
from hfwarmup.planning.plan import Plan
from hfwarmup.recipe.arguments import WarmupArguments, plan_again, read_map
from hfwarmup.run_folder.files import LOG, append_log
from hfwarmup.schedules.named import schedule_names

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
            raise ValueError(
                f"schedule {scheduler.spec.name!r} listens to an evaluation; set eval_strategy to 'steps' or 'epoch'."
            )
        planned = () if (plan := getattr(args, "plan", None)) is None else plan.reasons
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
            raise ValueError(
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
            raise RuntimeError(message)
        self._mismatch_reported = True
        if is_rank_zero():
            logger.warning("%s", message)


class PlanKeeper(TrainerCallback):
    """Plans again when a Trainer begins with another batch or length than the plan's.

    That happens under auto_find_batch_size, which lowers the batch until it fits, and in a second `train()` of another
    length. Peak and warmup then follow the new batch and length by the plan's own rules.
    """

    def __init__(
        self, plan: Plan, warmup: WarmupArguments, *, num_samples: int, tokens_per_sample: int | None = None
    ) -> None:
        self.plan, self._warmup = plan, warmup
        self._num_samples, self._tokens_per_sample = num_samples, tokens_per_sample

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        scheduler, batch_size = own_scheduler(kwargs), state.train_batch_size or args.train_batch_size
        global_batch_size = batch_size * args.world_size * args.gradient_accumulation_steps
        if (global_batch_size, state.max_steps) == (self.plan.global_batch_size, self.plan.total_steps):
            return
        if scheduler is None:
            raise ValueError(
                f"the run has batch {global_batch_size} and {state.max_steps} updates, the plan "
                f"{self.plan.global_batch_size} and {self.plan.total_steps}; choose a schedule of hfwarmup, which can "
                "be planned again."
            )
        old = self.plan
        self.plan = plan_again(
            old,
            args,
            self._warmup,
            batch_size=batch_size,
            total_steps=state.max_steps,
            num_samples=self._num_samples,
            tokens_per_sample=self._tokens_per_sample,
        )
        scheduler.replan(
            peak_scale=self.plan.peak_lr / old.peak_lr if old.peak_lr else 1.0,
            num_warmup_steps=self.plan.warmup_steps,
            num_training_steps=self.plan.total_steps,
        )
        if is_rank_zero():
            logger.warning("planned again for the batch and length that the Trainer has:\n%s", self.plan)


class NonFiniteGuard(TrainerCallback):
    """Stops a run at a loss or gradient that is not finite, before it reaches the weights.

    A non-finite loss makes the gradient non-finite, and the norm of all gradients sees any such element, so one norm an
    update decides; the run's log.jsonl says that it was stopped. Under fp16 the gradient scaler skips such updates by
    itself, and the guard leaves them to it.
    """

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.fp16:
            return
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if not math.isfinite(norm.item()):
            lr = kwargs["optimizer"].param_groups[0]["lr"]
            log = Path(str(args.output_dir), LOG)
            if is_rank_zero() and log.exists():
                append_log(log, {"step": state.global_step, "stopped": "the loss or its gradient was not finite"})
            raise FloatingPointError(
                f"update {state.global_step}: the loss or its gradient is not finite (gradient norm {norm.item()}, "
                f"learning rate {float(lr):g}); stopped before the weights changed; "
                "lower learning_rate or lengthen warmup."
            )


def _go_on_without_state(scheduler: WarmupScheduler, step: int) -> None:
    """Put a scheduler whose state was in no checkpoint at the run's update `step`, under on_schedule_change=config.

    Raises ValueError under another policy, and where what comes after the warmup had a state of its own.
    """
    lost = (
        f"the checkpoint at update {step} has no state of the schedule (save_only_model?): the warmup would begin anew"
    )
    restart = "start a new run from its weights"
    if scheduler.after is not None:
        raise ValueError(f"{lost}; {restart}.")
    if scheduler.on_schedule_change != "config":
        raise ValueError(f"{lost}; {restart}, or pass on_schedule_change=config to go on at update {step}.")
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


def is_rank_zero() -> bool:
    """Whether this process speaks for all: rank 0, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def own_scheduler(kwargs: dict[str, Any]) -> WarmupScheduler | None:
    """The scheduler among a callback's arguments if it is of this package, out of accelerate's wrapper too."""
    scheduler = kwargs.get("lr_scheduler")
    scheduler = getattr(scheduler, "scheduler", scheduler)
    return scheduler if isinstance(scheduler, WarmupScheduler) else None


def planned_warmup_steps(args: TrainingArguments, state: TrainerState, kwargs: dict[str, Any]) -> int:
    """Updates to the peak, under a schedule of this package or of transformers, some of which drop the warmup."""
    if (scheduler := own_scheduler(kwargs)) is not None:
        return scheduler.spec.num_warmup_steps
    kind = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    return 0 if kind in WITHOUT_WARMUP else args.get_warmup_steps(state.max_steps)


def highest_peak_lr(optimizer: Optimizer) -> float:
    """The highest peak learning rate of any group; ReduceLROnPlateau and GreedyLR keep none, there that of now."""
    return max(peak_lrs(optimizer))


def peak_lrs(optimizer: Optimizer) -> list[float]:
    """The peak learning rate of each group, which most schedulers keep in `initial_lr`."""
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


def _same_on_all_ranks(metric: float) -> float:
    """Rank 0's value, so that a metric that differs in its last bit cannot split the learning rates."""
    if not dist.is_initialized():
        return metric
    values = [metric]
    dist.broadcast_object_list(values, src=0)
    return values[0]
