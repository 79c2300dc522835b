"""A warmup in front of any torch scheduler."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from hfwarmup.errors import UserError, check_choice
from hfwarmup.optim.handover import steps_made
from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.schedules.warmup_shapes import WARMUP_SHAPES


def warmup(after: LRScheduler, *, num_warmup_steps: int, shape: str = "gradual", **options: Any) -> WarmupScheduler:
    """A warmup in front of any torch scheduler: `num_warmup_steps` updates up to the first learning rate of `after`,
    which then begins to count.

    Update t < T_w runs at the warmup's learning rate, update T_w + n at what `after` gives for its own n. Give the
    metric of a ReduceLROnPlateau to `observe_metric`, which ignores it before the peak.

    Args:
        after: a torch scheduler that has not been stepped, or one of schedulers (`SequentialLR`, `ChainedScheduler`);
            its optimizer is used.
        num_warmup_steps: T_w, optimizer updates.
        shape: gradual, exponential, cosine, polynomial, saturating, linear or constant.
        **options: `initial_lr` or `initial_ratio`, `power`, `tau`, `weight_decay`, `on_schedule_change`.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> scheduler = warmup(torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5), num_warmup_steps=2, initial_lr=0.5)
    >>> applied = []
    >>> for _ in range(7):
    ...     applied += scheduler.get_last_lr()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> applied
    [0.5, 0.75, 1.0, 1.0, 0.5, 0.5, 0.25]
    """
    check_choice("shape", shape, WARMUP_SHAPES)
    if WARMUP_SHAPES[shape].counts_from_one:
        raise UserError(
            f"shape={shape!r} does not reach the peak at an update of your choice; use for example 'gradual'."
        )
    if not isinstance(after, LRScheduler):
        raise UserError(f"after is of type {type(after).__name__}; give a torch scheduler, for example StepLR(…).")
    if isinstance(after, WarmupScheduler):
        raise UserError("after is a WarmupScheduler, which has its own warmup; choose its decay instead.")
    if steps_made(after) > 0:
        raise UserError(f"after has made {steps_made(after)} steps; wrap it before it is stepped.")
    return WarmupScheduler(
        after.optimizer, num_warmup_steps=num_warmup_steps, after=after, warmup_shape=shape, **options
    )
