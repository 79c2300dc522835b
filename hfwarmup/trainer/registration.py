"""The names of schedules and optimizers made known to transformers: the only file that reaches into it.

What is reached, for want of a public way: the enums `SchedulerType` and `OptimizerNames`, which every TrainingArguments
and argument parser goes through, the tables `TYPE_TO_SCHEDULER_FUNCTION` and `_OPTIMIZER_HANDLERS`, and the list
`DEFAULT_CALLBACKS`, which every Trainer starts from.
"""

from __future__ import annotations

import copyreg
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from typing import Any

import aenum
import transformers.trainer
from torch.optim import Optimizer, RAdam
from transformers import TrainerCallback
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from hfwarmup.errors import UserError
from hfwarmup.optim.gi_adam import GIAdamW
from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.schedules.named import SCHEDULES, ScheduleFactory, add_schedule, schedule_names, user_factory
from hfwarmup.trainer.first_update import BeforeFirstUpdate
from hfwarmup.trainer.running import is_rank_zero
from hfwarmup.trainer.warmup_callback import WarmupCallback

logger = logging.getLogger(__name__)

TRANSFORMERS_NAMES = frozenset(member.value for kind in (SchedulerType, OptimizerNames) for member in kind)
"""The names that transformers brings, read before the first registration."""
TAKEN = TRANSFORMERS_NAMES | {member.name.lower() for member in SchedulerType}
"""Names that no schedule can have, in lower case: an enum's member has a name of its own beside its value."""
SCHEDULE_FREE_WITH_WARMUP = ("schedule_free_adamw", "schedule_free_sgd")
"""Optimizers of transformers that take warmup_steps for a warmup of their own."""


def register(name: str | None = None, factory: ScheduleFactory | None = None) -> None:
    """Make every schedule name, and `name` for the user's own `factory`, valid as `lr_scheduler_type`.

    It then works in TrainingArguments and its subclasses, on the command line, in YAML and in `get_scheduler`, with
    options in `lr_scheduler_kwargs`, without a Trainer subclass and without a callback of the user's. As `optim` two
    more names are valid: `gi_adamw` (GIAdamW; `optim_args: init_batches=4, fused=true`) and `radam` (torch's, with
    decoupled weight decay). Calling it again changes nothing, but for a function of the same module and qualified name,
    which takes the place of the one before: a notebook's cell may be run again.

    Args:
        name: a new name, with `factory`; upper and lower case are the same.
        factory: (*, peak_lr, num_warmup_steps, num_training_steps, **options) -> (0-based update -> learning rate).

    Raises:
        UserError: the name is taken, by this package, by transformers or by another factory; the factory is no
            function; or only one of the two arguments is given. Nothing of the name is registered then.

    >>> register()
    >>> from transformers import TrainingArguments
    >>> str(TrainingArguments(lr_scheduler_type="warmup_cosine", use_cpu=True).lr_scheduler_type.value)
    'warmup_cosine'
    """
    for known in SCHEDULES:
        _add_name(known)
    _add_optimizers()
    for kind in (SchedulerType, OptimizerNames):
        copyreg.pickle(kind, _reduce)
    for callback in (BeforeFirstUpdate, WarmupCallback):
        if callback not in transformers.trainer.DEFAULT_CALLBACKS:
            transformers.trainer.DEFAULT_CALLBACKS.append(callback)  # type: ignore[arg-type]
    if name is None and factory is None:
        return
    if name is None or factory is None:
        missing = "name" if name is None else "factory"
        raise UserError(f"register: {missing} is missing; give name and factory, or neither.")
    if str(name).lower() in TAKEN:
        raise UserError(f"schedule {name!r} is transformers' own; choose another name.")
    add_schedule(name, factory)
    _add_name(name)


@contextmanager
def in_every_trainer(callback: type[TrainerCallback]) -> Iterator[None]:
    """Every Trainer that is made inside has one more callback, behind those of `register()`."""
    transformers.trainer.DEFAULT_CALLBACKS.append(callback)  # type: ignore[arg-type]
    try:
        yield
    finally:
        transformers.trainer.DEFAULT_CALLBACKS.remove(callback)  # type: ignore[arg-type]


def _add_name(name: str) -> None:
    """One new member of the enum and its entry in the table; nothing if it is there."""
    if name in _values(SchedulerType):
        return
    member = aenum.extend_enum(SchedulerType, name.upper(), name)
    TYPE_TO_SCHEDULER_FUNCTION[member] = partial(_build_scheduler, name=name)  # type: ignore[assignment]


def _add_optimizers() -> None:
    """Our optimizers, and those of transformers that would warm up a second time under a schedule of ours."""
    if "gi_adamw" in _values(OptimizerNames):
        return
    for name, make in (("gi_adamw", _gi_adamw), ("radam", _radam)):
        if name not in TRANSFORMERS_NAMES:
            _OPTIMIZER_HANDLERS[aenum.extend_enum(OptimizerNames, name.upper(), name)] = make
    for name in SCHEDULE_FREE_WITH_WARMUP:
        member = OptimizerNames(name)
        _OPTIMIZER_HANDLERS[member] = partial(_without_second_warmup, _OPTIMIZER_HANDLERS[member])


def _gi_adamw(context: Any) -> tuple[type[Optimizer], dict[str, Any]]:
    _check_optim_args("gi_adamw", context.optim_args, {"init_batches", "fused"})
    fused = context.optim_args.get("fused", "false").lower() == "true"
    return GIAdamW, {**context.optimizer_kwargs, **context.adam_kwargs, **({"fused": True} if fused else {})}


def _radam(context: Any) -> tuple[type[Optimizer], dict[str, Any]]:
    _check_optim_args("radam", context.optim_args, set())
    return RAdam, {**context.optimizer_kwargs, **context.adam_kwargs, "decoupled_weight_decay": True}


def _check_optim_args(name: str, given: dict[str, str], known: set[str]) -> None:
    for option in given:
        if option not in known:
            takes = f"it takes {', '.join(sorted(known))}." if known else "it takes none."
            raise UserError(f"optim_args: {name} has no option {option!r}; {takes}")


def _without_second_warmup(handler: Any, context: Any) -> tuple[type[Optimizer], dict[str, Any]]:
    """What `handler` makes, without the optimizer's own warmup where the schedule has one."""
    optimizer_class, settings = handler(context)
    kind = context.args.lr_scheduler_type
    if getattr(kind, "value", kind) in schedule_names():
        settings["warmup_steps"] = 0
    return optimizer_class, settings


def _values(kind: type[Enum]) -> set[str]:
    return {member.value for member in kind}


def _build_scheduler(optimizer: Optimizer, *, name: str, **arguments: Any) -> WarmupScheduler:
    """What `get_scheduler` calls, with num_warmup_steps, num_training_steps and the scheduler's options."""
    scheduler = WarmupScheduler(optimizer, name, **arguments)
    warms_up_itself = isinstance(getattr(optimizer, "optimizer", optimizer), (GIAdamW, RAdam))
    no_warmup = scheduler.spec.warmup_steps == 0 and user_factory(name) is None
    if no_warmup and not warms_up_itself and is_rank_zero():
        logger.warning(
            "schedule %r has no warmup, since warmup_steps is 0; set for example warmup_steps=0.05 (5%%).", name
        )
    return scheduler


def _reduce(member: Any) -> tuple[Any, tuple[Any, ...]]:
    """Pickle a name of ours as a call that registers first, so that training_args.bin loads in any process."""
    if member.value in TRANSFORMERS_NAMES:
        return type(member), (member.value,)
    return (_restore, (member.value,)) if isinstance(member, SchedulerType) else (_restore_optimizer, (member.value,))


def _restore(value: str) -> SchedulerType:
    register()
    if value not in _values(SchedulerType):
        raise UserError(
            f"these arguments use the schedule {value!r}; call hfwarmup.register({value!r}, factory) first."
        )
    return SchedulerType(value)


def _restore_optimizer(value: str) -> OptimizerNames:
    register()
    return OptimizerNames(value)
