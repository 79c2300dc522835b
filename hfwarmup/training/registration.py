"""The schedules' names made known to transformers: the only file that reaches into it.

What is reached, for want of a public way: the enum `SchedulerType`, which every TrainingArguments and argument parser
goes through, the table `TYPE_TO_SCHEDULER_FUNCTION`, and the list `DEFAULT_CALLBACKS`, which every Trainer starts from.
"""

from __future__ import annotations

import copyreg
import logging
from functools import partial
from typing import Any

import aenum
import transformers.trainer
from torch.optim import Optimizer
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_utils import SchedulerType

from hfwarmup.schedules.named import SCHEDULES, ScheduleFactory, add_schedule, own_factory
from hfwarmup.training.callbacks import WarmupCallback, is_rank_zero
from hfwarmup.training.scheduler import WarmupScheduler

logger = logging.getLogger(__name__)

TRANSFORMERS_NAMES = frozenset(member.value for member in SchedulerType)
"""The names that transformers brings, read before the first registration."""


def register(name: str | None = None, factory: ScheduleFactory | None = None) -> None:
    """Make every schedule name, and `name` for the user's own `factory`, valid as `lr_scheduler_type`.

    It then works in TrainingArguments and its subclasses, on the command line, in YAML and in `get_scheduler`, with
    options in `lr_scheduler_kwargs`, without a Trainer subclass and without a callback of the user's. Calling it again
    changes nothing.

    Args:
        name: a new name, with `factory`.
        factory: (*, peak_lr, num_warmup_steps, num_training_steps, **options) -> (0-based update -> learning rate).

    Raises:
        ValueError: the name is taken, by this package, by transformers or by another factory; or only one of the
            two arguments is given.

    >>> register()
    >>> from transformers import TrainingArguments
    >>> str(TrainingArguments(lr_scheduler_type="warmup_cosine", use_cpu=True).lr_scheduler_type.value)
    'warmup_cosine'
    """
    for known in SCHEDULES:
        _add_name(known)
    copyreg.pickle(SchedulerType, _reduce)
    if WarmupCallback not in transformers.trainer.DEFAULT_CALLBACKS:
        transformers.trainer.DEFAULT_CALLBACKS.append(WarmupCallback)  # type: ignore[arg-type]
    if name is None and factory is None:
        return
    if name is None or factory is None:
        missing = "name" if name is None else "factory"
        raise ValueError(f"register: {missing} is missing; give name and factory, or neither.")
    if name in TRANSFORMERS_NAMES:
        raise ValueError(f"schedule {name!r} is transformers' own; choose another name.")
    add_schedule(name, factory)
    _add_name(name)


def _add_name(name: str) -> None:
    """One new member of the enum and its entry in the table; nothing if it is there."""
    if name in _names():
        return
    member = aenum.extend_enum(SchedulerType, name.upper(), name)
    TYPE_TO_SCHEDULER_FUNCTION[member] = partial(_build_scheduler, name=name)  # type: ignore[assignment]


def _names() -> set[str]:
    return {member.value for member in SchedulerType}


def _build_scheduler(optimizer: Optimizer, *, name: str, **arguments: Any) -> WarmupScheduler:
    """What `get_scheduler` calls, with num_warmup_steps, num_training_steps and the scheduler's options."""
    scheduler = WarmupScheduler(optimizer, name, **arguments)
    if scheduler.spec.num_warmup_steps == 0 and own_factory(name) is None and is_rank_zero():
        logger.warning(
            "schedule %r has no warmup, since warmup_steps is 0; set for example warmup_steps=0.05 (5%%).", name
        )
    return scheduler


def _reduce(member: SchedulerType) -> tuple[Any, tuple[str]]:
    """Pickle a name of ours as a call that registers first, so that training_args.bin loads in any process."""
    return (SchedulerType if member.value in TRANSFORMERS_NAMES else _restore), (member.value,)


def _restore(value: str) -> SchedulerType:
    register()
    if value not in _names():
        raise ValueError(
            f"these arguments use the schedule {value!r}; call hfwarmup.register({value!r}, factory) first."
        )
    return SchedulerType(value)
