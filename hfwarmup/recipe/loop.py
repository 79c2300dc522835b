"""What a training loop without a Trainer needs to be resumed, recorded and shown as a Trainer's is."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from transformers import DefaultFlowCallback, PreTrainedTokenizerBase, TrainerControl, TrainerState

from hfwarmup.errors import UserError
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.results import draw_run, say_where
from hfwarmup.recipe.run import Run
from hfwarmup.reporting.card import write_card
from hfwarmup.trainer.compat import TRAINER_STATE_NAME, AcceleratorConfig, CallbackHandler, rotate_checkpoints
from hfwarmup.trainer.planning import plan_of

logger = logging.getLogger(__name__)


def check_followed(args: RecipeArguments, followed: Collection[str]) -> None:
    """Raise UserError for a setting that is neither in `followed` nor at its default: a loop would ignore it."""
    unset = (None, "none", AcceleratorConfig())  # what transformers makes of a setting that is not given
    for setting in fields(args):
        default = setting.default if setting.default_factory is MISSING else setting.default_factory()
        value = getattr(args, setting.name)
        value, default = (getattr(choice, "value", choice) or None for choice in (value, default))
        if setting.name not in followed and value != default and not (value in unset and default in unset):
            raise UserError(
                f"{setting.name}={value} has no effect in this loop; remove it, or choose a recipe with a Trainer, "
                "such as pretrain_clm."
            )
    if "epoch" in (args.logging_strategy, args.eval_strategy, args.save_strategy):
        raise UserError("this loop logs, evaluates and saves by steps; replace the strategy 'epoch' by 'steps'.")


class Loop:
    """Where a training loop is, and the callbacks of a Trainer, which serve a loop as well.

    The callbacks check each update, record its learning rate, show the progress, and say when to log, evaluate, save
    and stop. A run with a checkpoint goes on from there.

    Args:
        run: what `plan` was called on.
        args: what it returned.
        accelerator: has prepared what follows.
        model: what is trained.
        optimizer: its groups exist already.
        scheduler: a WarmupScheduler, prepared.
        eval_loader: for the progress bar of an evaluation.

    Raises:
        UserError: `args` follow no plan.
    """

    def __init__(
        self,
        run: Run,
        args: RecipeArguments,
        accelerator: Accelerator,
        *,
        model: nn.Module,
        optimizer: Any,
        scheduler: Any,
        eval_loader: DataLoader,
    ) -> None:
        plan = plan_of(args)
        if plan is None:
            raise UserError("the loop's arguments follow no plan; give it what run.plan(…) returned.")
        total_steps = plan.total_steps
        self._args, self._accelerator = args, accelerator
        self._model, self._scheduler = model, scheduler
        self._control, self._state = TrainerControl(), TrainerState()
        if run.checkpoint is not None:
            accelerator.load_state(run.checkpoint)
            self._state = TrainerState.load_from_json(str(Path(run.checkpoint, TRAINER_STATE_NAME)))
            logger.info("resumed from %s, at update %d of %d", run.checkpoint, self._state.global_step, total_steps)
        self._state.max_steps, self._state.is_world_process_zero = total_steps, accelerator.is_main_process
        self._state.compute_steps(args, total_steps)
        callbacks = [DefaultFlowCallback(), *run.callbacks()]
        self._callbacks = CallbackHandler(callbacks, model, None, optimizer, scheduler)
        self._callbacks.eval_dataloader = eval_loader
        self._first_update = self._state.global_step
        self._begun = self._seconds = 0.0

    @property
    def update(self) -> int:
        """How many updates are done."""
        return self._state.global_step

    @property
    def is_running(self) -> bool:
        """Whether there are updates to make."""
        return self._state.global_step < self._state.max_steps and not self._control.should_training_stop

    def begin(self) -> None:
        """Call it before the first update."""
        self._begun = time.perf_counter()
        self._control = self._callbacks.on_train_begin(self._args, self._state, self._control)

    def before_update(self) -> None:
        """Call it when the gradients are complete and clipped."""
        self._callbacks.on_pre_optimizer_step(self._args, self._state, self._control)

    def after_update(self) -> None:
        """Call it after `optimizer.step()`, before `scheduler.step()`."""
        self._callbacks.on_optimizer_step(self._args, self._state, self._control)

    def end_update(self, *, updates_per_epoch: int) -> TrainerControl:
        """Count the update, and say what is due: should_log, should_evaluate, should_save, should_training_stop."""
        self._state.global_step += 1
        self._state.epoch = self._state.global_step / updates_per_epoch
        self._control = self._callbacks.on_step_end(self._args, self._state, self._control)
        return self._control

    def log(self, entry: dict[str, float]) -> None:
        """Record an entry of the log, and show it."""
        self._state.log_history.append({**entry, "step": self._state.global_step})
        self._callbacks.on_log(self._args, self._state, self._control, entry)

    def log_evaluation(self, metrics: dict[str, float]) -> None:
        """Record the metrics of an evaluation; a plateau listens to them."""
        self.log(metrics)
        self._callbacks.on_evaluate(self._args, self._state, self._control, metrics)

    def advance_evaluation(self) -> None:
        """Call it after each batch of an evaluation: it moves the progress bar."""
        self._callbacks.on_prediction_step(self._args, self._state, TrainerControl())

    def save(self) -> None:
        """Save `checkpoint-<update>` and delete old ones.

        The state is written last: a checkpoint without it counts as incomplete.
        """
        folder = Path(str(self._args.output_dir), f"checkpoint-{self._state.global_step}")
        self._accelerator.save_state(str(folder))
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            self._state.save_to_json(str(folder / TRAINER_STATE_NAME))
            rotate_checkpoints(str(self._args.output_dir), self._args.save_total_limit)
        self._accelerator.wait_for_everyone()
        self._callbacks.on_save(self._args, self._state, self._control)

    def end(self) -> None:
        """Call it after the last update."""
        self._callbacks.on_train_end(self._args, self._state, self._control)
        self._seconds = time.perf_counter() - self._begun

    def finish(self, metrics: dict[str, float], *, summary: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """Save model, tokenizer, metrics, pictures and model card, and say where they are; `summary` is one line."""
        self._callbacks.on_evaluate(self._args, self._state, self._control, metrics)
        weights = self._accelerator.get_state_dict(self._model)  # on every rank: shards are gathered
        if not self._accelerator.is_main_process:
            return
        folder = Path(str(self._args.output_dir))
        self._accelerator.unwrap_model(self._model).save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)
        updates = self._state.global_step - self._first_update
        speed = {"train_runtime": self._seconds, "train_steps_per_second": updates / self._seconds}
        (folder / "all_results.json").write_text(json.dumps({**speed, **metrics}, indent=4, sort_keys=True) + "\n")
        self._state.save_to_json(str(folder / TRAINER_STATE_NAME))
        draw_run(folder, self._scheduler.scheduler, self._state.log_history)
        write_card(folder, summary=summary, library_name="transformers")
        say_where(folder, summary)
