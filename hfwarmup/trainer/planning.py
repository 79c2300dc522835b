"""The plan of a Trainer's run: derived from its arguments, which keep what their user gave."""

from __future__ import annotations

from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from transformers import TrainerState, TrainingArguments

from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.planning.durations import Duration
from hfwarmup.planning.plan import Plan
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.planning.values import read_map
from hfwarmup.schedules.named import schedule_names
from hfwarmup.trainer.compat import TRAINER_STATE_NAME

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def plan_training(
    training: TrainingArguments,
    warmup: WarmupArguments,
    *,
    num_samples: int,
    tokens_per_sample: int | None = None,
    checkpoint: str | None = None,
) -> Plan:
    """The plan of a Trainer's run. `training` is read and stays as it is; `planned_arguments` follow the plan.

    The global batch is per-device batch x processes x accumulation, as the Trainer will have it. With
    auto_find_batch_size the batch of the `checkpoint` counts, which a resumed Trainer goes back to.

    Args:
        training: what its user gave; learning_rate and warmup are meant at the reference batch.
        warmup: the warmup's length, and the rules that scale it and the peak.
        num_samples: size of the training set.
        tokens_per_sample: for a warmup in tokens, and to report tokens.
        checkpoint: the folder to resume from.

    Raises:
        UserError: as `PlanSettings.plan` does.
    """
    batch_size = training.train_batch_size
    if checkpoint and training.auto_find_batch_size:
        state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
        batch_size = state.train_batch_size or batch_size
    settings = plan_settings(training, warmup, batch_size=batch_size, tokens_per_sample=tokens_per_sample)
    return settings.plan(num_processes=training.world_size, num_samples=num_samples)


def planned_arguments(training: Arguments, warmup: WarmupArguments, plan: Plan) -> Arguments:
    """A copy of `training` that follows `plan`: peak, warmup_steps, accumulation, resume policy, and the plan itself.

    `warmup_steps` is the only owner of the warmup's length in a Trainer; it is 0 where the schedule takes its length
    from beta2.
    """
    planned = copy(training)
    if plan.schedule in schedule_names():
        options = read_map("lr_scheduler_kwargs", training.lr_scheduler_kwargs or {})
        planned.lr_scheduler_kwargs = {"on_schedule_change": warmup.on_schedule_change, **options}
    follow(planned, plan)
    return planned


def follow(planned: TrainingArguments, plan: Plan) -> None:
    """Let arguments that `planned_arguments` has made follow another plan."""
    planned.learning_rate = plan.peak_lr
    planned.warmup_steps = 0 if plan.length_from_beta2 else plan.warmup_steps
    planned.gradient_accumulation_steps = plan.gradient_accumulation_steps
    setattr(planned, "plan", asdict(plan))  # noqa: B010  plain data, since training_args.bin holds it; see `plan_of`


def plan_of(args: TrainingArguments) -> Plan | None:
    """The plan that a Trainer's arguments follow, None where they follow none."""
    plan: dict[str, Any] | None = getattr(args, "plan", None)
    return None if plan is None else Plan(**{**plan, "warmup": Duration(**plan["warmup"])})


def plan_settings(
    training: TrainingArguments, warmup: WarmupArguments, *, batch_size: int, tokens_per_sample: int | None
) -> PlanSettings:
    """The settings that decide the plan, read from a Trainer's arguments and the warmup's."""
    read = {setting.name: setting.value for setting in getattr(training, "settings", ())}
    given = {**read, **vars(training), **vars(warmup)}
    given |= {"per_device_train_batch_size": batch_size}
    plain = {name: getattr(value, "value", value) for name, value in given.items()}
    return replace(PlanSettings.pick(plain), tokens_per_sample=tokens_per_sample)
