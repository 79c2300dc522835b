"""A plan made again when a Trainer begins with another batch or length."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.trainer.planning import follow, plan_of, plan_settings
from hfwarmup.trainer.running import is_rank_zero, own_scheduler

logger = logging.getLogger(__name__)


class Replan(TrainerCallback):
    """Plans again when a Trainer begins with another batch or length than its plan's.

    That happens under auto_find_batch_size, which lowers the batch until it fits, and in a second `train()` of another
    length. Peak and warmup then follow the new batch and length by the plan's own rules.

    Args:
        given: the arguments before `planned_arguments`, as their user gave them.
        warmup: those that the plan was made with.
        num_samples: size of the training set.
        tokens_per_sample: as for `plan_training`.
    """

    def __init__(
        self,
        given: TrainingArguments,
        warmup: WarmupArguments,
        *,
        num_samples: int,
        tokens_per_sample: int | None = None,
    ) -> None:
        self._given, self._warmup = given, warmup
        self._num_samples, self._tokens_per_sample = num_samples, tokens_per_sample

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        old = plan_of(args)
        assert old is not None
        scheduler, batch_size = own_scheduler(kwargs), state.train_batch_size or args.train_batch_size
        global_batch_size = batch_size * args.world_size * args.gradient_accumulation_steps
        if (global_batch_size, state.max_steps) == (old.global_batch_size, old.total_steps):
            return
        if scheduler is None:
            raise UserError(
                f"the run has batch {global_batch_size} and {state.max_steps} updates, the plan "
                f"{old.global_batch_size} and {old.total_steps}; choose a schedule of hfwarmup, which can "
                "be planned again."
            )
        settings = plan_settings(
            self._given, self._warmup, batch_size=batch_size, tokens_per_sample=self._tokens_per_sample
        )
        # The Trainer keeps its accumulation, also where another batch would need another one for target_batch_size.
        accumulation = args.gradient_accumulation_steps
        settings = replace(settings, target_batch_size=None, gradient_accumulation_steps=accumulation)
        new = settings.plan(num_processes=args.world_size, num_samples=self._num_samples, total_steps=state.max_steps)
        follow(args, new)
        scheduler.replan(
            peak_scale=new.peak_lr / old.peak_lr if old.peak_lr else 1.0,
            num_warmup_steps=0 if new.length_from_beta2 else new.warmup_steps,
            num_training_steps=new.total_steps,
        )
        if is_rank_zero():
            logger.warning("planned again for the batch and length that the Trainer has:\n%s", new)
