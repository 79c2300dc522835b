"""What hfwarmup adds to transformers: names of schedules and optimizers, and two callbacks in every Trainer."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from torch.optim import Optimizer, RAdam
from transformers import TrainingArguments

from hfwarmup.errors import UserError
from hfwarmup.optim.gi_adam import GIAdamW
from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.schedules.named import SCHEDULES, ScheduleFactory, add_schedule, schedule_names, user_factory
from hfwarmup.trainer.compat import (
    add_default_callback,
    add_optimizer_name,
    add_schedule_name,
    adjust_optimizer,
    is_built_in_schedule,
    optimizer_names,
    pickle_names_as_text,
)
from hfwarmup.trainer.first_update import BeforeFirstUpdate, unwrapped
from hfwarmup.trainer.running import is_rank_zero, schedule_name
from hfwarmup.trainer.warmup_callback import WarmupCallback

logger = logging.getLogger(__name__)

SCHEDULE_FREE_WITH_WARMUP = ("schedule_free_adamw", "schedule_free_sgd")
"""Optimizers of transformers that use warmup_steps for a warmup of their own."""


def register(name: str | None = None, factory: ScheduleFactory | None = None) -> None:
    """Make every schedule name, and `name` for the user's own `factory`, valid as `lr_scheduler_type`.

    The names then work in TrainingArguments and its subclasses, on the command line, in YAML and in `get_scheduler`,
    with options in `lr_scheduler_kwargs`. No Trainer subclass and no callback of the user's is needed. `optim` accepts
    two more names: `gi_adamw` (GIAdamW; `optim_args: init_batches=4, fused=true`) and `radam` (torch's, with decoupled
    weight decay). Calling it again changes nothing, with one exception: a function of the same module and qualified
    name replaces the earlier one, so that a cell of a notebook can be run again.

    A pickle, such as `training_args.bin`, holds an added name as plain text. It opens anywhere, and trains with the
    same schedule in a process that has called `register()`.

    Args:
        name: a new name, with `factory`; upper and lower case are the same.
        factory: (*, peak_lr, num_warmup_steps, num_training_steps, **options) -> (0-based update -> learning rate).

    Raises:
        UserError: the name is taken, by this package, by transformers or by another factory; the factory is no
            function; or only one of the two arguments is given. The name is not registered then.

    >>> register()
    >>> from transformers import TrainingArguments
    >>> str(TrainingArguments(lr_scheduler_type="warmup_cosine", use_cpu=True).lr_scheduler_type.value)
    'warmup_cosine'
    """
    for known in SCHEDULES:
        add_schedule_name(known, partial(_build_scheduler, name=known))
    _add_optimizers()
    pickle_names_as_text()
    for callback in (BeforeFirstUpdate, WarmupCallback):
        add_default_callback(callback)
    if name is None and factory is None:
        return
    if name is None or factory is None:
        missing = "name" if name is None else "factory"
        raise UserError(f"register: {missing} is missing; give name and factory, or neither.")
    if is_built_in_schedule(str(name)):
        raise UserError(f"schedule {name!r} is transformers' own; choose another name.")
    add_schedule(name, factory)
    add_schedule_name(name, partial(_build_scheduler, name=name))


def _build_scheduler(optimizer: Optimizer, *, name: str, **arguments: Any) -> WarmupScheduler:
    """What `get_scheduler` calls, with num_warmup_steps, num_training_steps and the scheduler's options."""
    scheduler = WarmupScheduler(optimizer, name, **arguments)
    warms_up_itself = isinstance(unwrapped(optimizer), (GIAdamW, RAdam))
    no_warmup = scheduler.spec.warmup_steps == 0 and user_factory(name) is None
    if no_warmup and not warms_up_itself and is_rank_zero():
        logger.warning("schedule %r has no warmup because warmup_steps is 0; set e.g. warmup_steps=0.05 (5%%).", name)
    return scheduler


def _add_optimizers() -> None:
    """Add our optimizers, and keep those of transformers from a second warmup."""
    if "gi_adamw" in optimizer_names():
        return
    add_optimizer_name("gi_adamw", _gi_adamw)
    if "radam" not in optimizer_names():
        add_optimizer_name("radam", _radam)
    for name in SCHEDULE_FREE_WITH_WARMUP:
        adjust_optimizer(name, _drop_second_warmup)


def _gi_adamw(settings: dict[str, Any], optim_args: dict[str, str]) -> tuple[type[Optimizer], dict[str, Any]]:
    _check_optim_args("gi_adamw", optim_args, {"init_batches", "fused"})
    is_fused = optim_args.get("fused", "false").lower() == "true"
    return GIAdamW, {**settings, "fused": is_fused or None}  # None: torch chooses


def _radam(settings: dict[str, Any], optim_args: dict[str, str]) -> tuple[type[Optimizer], dict[str, Any]]:
    _check_optim_args("radam", optim_args, set())
    return RAdam, {**settings, "decoupled_weight_decay": True}


def _check_optim_args(name: str, given: dict[str, str], known: set[str]) -> None:
    for option in given:
        if option not in known:
            takes = f"it takes {', '.join(sorted(known))}." if known else "it takes none."
            raise UserError(f"optim_args: {name} has no option {option!r}; {takes}")


def _drop_second_warmup(args: TrainingArguments, settings: dict[str, Any]) -> None:
    """Turn off the optimizer's own warmup where the schedule has one."""
    if schedule_name(args) in schedule_names():
        settings["warmup_steps"] = 0
