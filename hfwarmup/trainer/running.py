"""What callbacks ask about their run: is it rank 0, which schedule runs, how long is the warmup, how high the peak."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch.optim import Optimizer
from transformers import TrainerState, TrainingArguments

from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.planning.caveats import WITHOUT_WARMUP


def is_rank_zero() -> bool:
    """Whether this process logs and writes for all of them: it is rank 0, or the only process."""
    return not dist.is_initialized() or dist.get_rank() == 0


def schedule_name(args: TrainingArguments) -> str:
    """The name in `lr_scheduler_type`; the arguments hold it as a member of an enum, or as text out of a pickle.

    >>> schedule_name(TrainingArguments(lr_scheduler_type="cosine", use_cpu=True))
    'cosine'
    """
    return str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))


def own_scheduler(kwargs: dict[str, Any]) -> WarmupScheduler | None:
    """The scheduler among a callback's arguments, without accelerate's wrapper; None if it is not a WarmupScheduler."""
    scheduler = kwargs.get("lr_scheduler")
    scheduler = getattr(scheduler, "scheduler", scheduler)
    return scheduler if isinstance(scheduler, WarmupScheduler) else None


def planned_warmup_steps(args: TrainingArguments, state: TrainerState, kwargs: dict[str, Any]) -> int:
    """Updates to the peak, with any schedule: some of transformers' own ignore `warmup_steps`."""
    if (scheduler := own_scheduler(kwargs)) is not None:
        return scheduler.spec.warmup_steps
    return 0 if schedule_name(args) in WITHOUT_WARMUP else args.get_warmup_steps(state.max_steps)


def peak_lrs(optimizer: Optimizer) -> list[float]:
    """The peak learning rate of each group.

    Schedulers keep it in `initial_lr`. ReduceLROnPlateau and GreedyLR do not, and the current learning rate counts.
    """
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
