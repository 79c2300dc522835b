"""What a callback asks of the run that it is in: who speaks, which scheduler, how high, how long."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch.optim import Optimizer
from transformers import TrainerState, TrainingArguments

from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.planning.caveats import WITHOUT_WARMUP


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
        return scheduler.spec.warmup_steps
    kind = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    return 0 if kind in WITHOUT_WARMUP else args.get_warmup_steps(state.max_steps)


def highest_peak_lr(optimizer: Optimizer) -> float:
    """The highest peak learning rate of any group; ReduceLROnPlateau and GreedyLR keep none, there that of now."""
    return max(peak_lrs(optimizer))


def peak_lrs(optimizer: Optimizer) -> list[float]:
    """The peak learning rate of each group, which most schedulers keep in `initial_lr`."""
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
