"""All uses of internals of transformers and accelerate: the file to mend when a new version breaks them.

A name is public if it can be imported from `transformers`, `transformers.integrations`, `transformers.utils.logging`,
`accelerate` or `accelerate.utils`. An attribute is public if it has no leading underscore, except
`Trainer.callback_handler`. Everything else is internal. Other modules use it through the names below, and
`tests/trainer/test_compat.py` checks that. Each name says which version it was written for and why there is no public
way. The tests run with transformers 5.23 and accelerate 1.15; transformers 5.20 and 5.24 have the same internals.
"""

from __future__ import annotations

import argparse
import copyreg
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import aenum
from accelerate.commands.config import config_args
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import SchedulerType, Trainer, TrainerCallback, TrainingArguments
from transformers.debug_utils import DebugOption
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.trainer import DEFAULT_CALLBACKS
from transformers.trainer import TRAINER_STATE_NAME as TRAINER_STATE_NAME
from transformers.trainer_callback import CallbackHandler as CallbackHandler
from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS
from transformers.trainer_pt_utils import AcceleratorConfig as AcceleratorConfig
from transformers.trainer_utils import rotate_checkpoints as rotate_checkpoints
from transformers.training_args import OptimizerNames

# `X as X` is for other modules to import: transformers 5.23 has these only in the modules behind its Trainer.

BUILT_IN_NAMES: dict[type[Enum], frozenset[str]] = {
    kind: frozenset(member.value for member in kind) for kind in (SchedulerType, OptimizerNames)
}
"""What transformers brings, read before the first name is added."""

OptimizerFactory = Callable[[dict[str, Any], dict[str, str]], tuple[type[Optimizer], dict[str, Any]]]
"""(lr, betas and eps, what `optim_args` says) -> (class, its keyword arguments)."""


# Names of schedules and optimizers


def is_built_in_schedule(name: str) -> bool:
    """Whether transformers has a schedule of this name, in upper or lower case.

    transformers 5.23: a member of the enum has a name of its own beside its value, and each can be there only once.

    >>> is_built_in_schedule("Cosine"), is_built_in_schedule("warmup_cosine")
    (True, False)
    """
    known = BUILT_IN_NAMES[SchedulerType]
    return name.lower() in known | {member.name.lower() for member in SchedulerType if member.value in known}


def is_schedule(name: str) -> bool:
    """Whether `lr_scheduler_type` can have this value in this process.

    transformers 5.23: the enum is the only list of valid names.
    """
    return name in [member.value for member in SchedulerType]


def add_schedule_name(name: str, build: Callable[..., LRScheduler]) -> None:
    """Make `name` valid as `lr_scheduler_type`; `get_scheduler` then calls `build`. A name that exists stays as it is.

    transformers 5.23: TrainingArguments, argument parsers and `get_scheduler` accept only members of a closed enum, and
    `get_scheduler` looks the function up in a table of its module (transformers#25119 asks for a public way).
    """
    if not is_schedule(name):
        TYPE_TO_SCHEDULER_FUNCTION[aenum.extend_enum(SchedulerType, name.upper(), name)] = build


def optimizer_names() -> list[str]:
    """The values that `optim` can have in this process.

    transformers 5.23: the enum is the only list of valid names.
    """
    return [member.value for member in OptimizerNames]


def add_optimizer_name(name: str, build: OptimizerFactory) -> None:
    """Make `name` valid as `optim`.

    transformers 5.23: a Trainer takes an optimizer's class as `optimizer_cls_and_kwargs`, but a name, which command
    lines and YAML files need, only from a closed enum and a private table.
    """

    def handle(context: Any) -> tuple[type[Optimizer], dict[str, Any]]:
        return build({**context.optimizer_kwargs, **context.adam_kwargs}, context.optim_args)

    _OPTIMIZER_HANDLERS[aenum.extend_enum(OptimizerNames, name.upper(), name)] = handle


def adjust_optimizer(name: str, adjust: Callable[[TrainingArguments, dict[str, Any]], None]) -> None:
    """Let `adjust` change the keyword arguments of transformers' own optimizer `name` before it is made.

    transformers 5.23: only the private table knows how `optim` and `optim_args` become an optimizer.
    """
    member = OptimizerNames(name)
    built_in = _OPTIMIZER_HANDLERS[member]

    def handle(context: Any) -> tuple[type[Optimizer], dict[str, Any]]:
        optimizer_class, settings = built_in(context)
        adjust(context.args, settings)
        return optimizer_class, settings

    _OPTIMIZER_HANDLERS[member] = handle


# Pickles


def pickle_names_as_text() -> None:
    """Let `training_args.bin` hold an added name as text, so that it opens where hfwarmup is not installed.

    transformers 5.23: a pickled member of the enum opens only where the enum has that member.
    """
    for kind in BUILT_IN_NAMES:
        copyreg.pickle(kind, _reduce)


def restore_names(args: TrainingArguments) -> None:
    """Turn names that came out of a pickle as text into members of their enums again.

    transformers 5.23: a Trainer looks its optimizer up by the member, and its model card reads the member's value.
    """
    args.lr_scheduler_type = SchedulerType(args.lr_scheduler_type)
    args.optim = OptimizerNames(args.optim)


def _reduce(member: Enum) -> tuple[type, tuple[str]]:
    return type(member) if member.value in BUILT_IN_NAMES[type(member)] else str, (member.value,)


# Trainers


def add_default_callback(callback: type[TrainerCallback]) -> None:
    """Give `callback` to every Trainer that is made from now on.

    transformers 5.23: a callback can be added only to one Trainer; the list that each starts from is its module's.
    """
    if callback not in DEFAULT_CALLBACKS:
        DEFAULT_CALLBACKS.append(callback)  # type: ignore[arg-type]


@contextmanager
def every_trainer_has(callback: type[TrainerCallback]) -> Iterator[None]:
    """Give `callback` to every Trainer that is made inside, after those of `add_default_callback`.

    transformers 5.23: see `add_default_callback`.
    """
    DEFAULT_CALLBACKS.append(callback)  # type: ignore[arg-type]
    try:
        yield
    finally:
        DEFAULT_CALLBACKS.remove(callback)  # type: ignore[arg-type]


def callbacks_of(trainer: Trainer) -> list[TrainerCallback]:
    """The list of the Trainer's callbacks, which later ones are added to.

    transformers 5.23: `add_callback` adds at the end, and `pop_callback` finds one by its class; nothing lists them.
    """
    callbacks: list[TrainerCallback] = trainer.callback_handler.callbacks
    return callbacks


def load_weights(trainer: Trainer, checkpoint: str) -> None:
    """Load a checkpoint's weights into the Trainer's model, whole or in shards, or into its PEFT adapter.

    transformers 5.23: `train(resume_from_checkpoint=…)` loads them too, but makes at least one more update.
    """
    trainer._load_from_checkpoint(checkpoint)


def replace_model_card(trainer: Trainer, write: Callable[..., None]) -> None:
    """Let `write` make the model card, with the arguments of `create_model_card`.

    transformers 5.23: a Trainer writes its own card before each push, and a subclass is the only public way to change
    it; here the Trainer is the user's.
    """
    trainer.create_model_card = write  # type: ignore[method-assign]


# Settings whose words only transformers knows


def tracker_names() -> list[str]:
    """The values that `report_to` can have, installed or not.

    transformers 5.23: the public function lists those that are installed.
    """
    return list(INTEGRATION_TO_CALLBACK)


def debug_options() -> list[str]:
    """The words that `debug` can hold.

    transformers 5.23: TrainingArguments checks them in text, but not in a list.
    """
    return [option.value for option in DebugOption]


# accelerate


def parameters_are_sharded() -> bool:
    """Whether FSDP or DeepSpeed scatters parameters and gradients over the ranks.

    accelerate 1.15: `Accelerator.distributed_type` says so, but callbacks get no Accelerator; `PartialState` does not
    know of sharding.
    """
    return AcceleratorState().distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def default_launch_config() -> Path:
    """The config file that `accelerate launch` reads when it is given none. It need not exist.

    accelerate 1.15: the path is in the code of `accelerate config` alone.
    """
    return Path(config_args.default_config_file)


def parse_launch_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What `accelerate launch` makes of its command line.

    accelerate 1.15: only its own parser knows where the script's arguments begin.
    """
    return launch_command_parser().parse_args(list(words))


def processes_in_launch_config(path: str | Path) -> int:
    """The number of processes that a config file of `accelerate launch` asks for.

    accelerate 1.15: only its own reader knows the defaults.
    """
    processes: int = config_args.load_config_from_file(str(path)).num_processes
    return processes
