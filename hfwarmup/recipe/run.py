"""One run of a recipe, from its arguments to its results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from torch import nn
from transformers import Trainer, TrainerCallback, default_data_collator, set_seed

from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import WarmupArguments
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.console import setup_logging
from hfwarmup.recipe.finished import train_or_load_finished
from hfwarmup.recipe.precision import resolve_compile
from hfwarmup.recipe.results import finish_run
from hfwarmup.recipe.run_config import KeepConfig
from hfwarmup.recipe.trainer_checks import CheckBestMetric, check_label_names
from hfwarmup.run_folder.checkpoints import find_checkpoint
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.planning import plan_of, plan_training, planned_arguments
from hfwarmup.trainer.progress import progress_of
from hfwarmup.trainer.recorder import RunRecorder
from hfwarmup.trainer.replan import Replan
from hfwarmup.trainer.tracking import track_plan
from hfwarmup.trainer.warmup_callback import WarmupCallback

logger = logging.getLogger(__name__)

Arguments = TypeVar("Arguments", bound=RecipeArguments)


class Run(Generic[Arguments]):
    """One run of a recipe: `plan`, then `train`, then `finish`; or `plan`, then a loop of one's own: see `Loop`.

    Making one sets up the logging, looks for the checkpoint to resume from, and sets the seed.

    Args:
        args: the arguments as they were given; learning_rate and warmup are meant at the reference batch.
        warmup: the length of the warmup, and the rules that scale it and the peak.

    Raises:
        UserError: `output_dir` and `resume` do not go together.
    """

    checkpoint: str | None
    """the folder to resume from; None for a new run"""

    def __init__(self, args: Arguments, warmup: WarmupArguments) -> None:
        setup_logging()
        self.checkpoint = find_checkpoint(str(args.output_dir), args.resume)
        set_seed(args.seed)
        self._args, self._warmup = args, warmup
        self._replan: Replan | None = None
        self._train_metrics: dict[str, float] | None = None

    def plan(
        self,
        model: nn.Module,
        train_dataset: Sequence[Any],
        *,
        collator: Callable[[list[Any]], dict[str, Any]] = default_data_collator,
        tokens_per_sample: int | None = None,
    ) -> Arguments:
        """A copy of the arguments that follows the plan: peak, warmup and accumulation at the real global batch.

        It logs the size of model and data, the precision, the plan, and whether compiling pays.

        Args:
            model: what is trained.
            train_dataset: its length counts, and its first samples are timed for `torch_compile: auto`.
            collator: makes a batch of samples, as for the Trainer.
            tokens_per_sample: where all samples have the same number of tokens: for a warmup in tokens, and to report
                tokens.

        Raises:
            UserError: there is no such plan; the message says which settings to change.
        """
        args = self._args
        sizes: dict[str, Any] = {"num_samples": len(train_dataset), "tokens_per_sample": tokens_per_sample}
        logger.info("%s", _describe_size(model, len(train_dataset), tokens_per_sample))
        logger.info("%s", args.precision_reason)
        plan = plan_training(args, self._warmup, checkpoint=self.checkpoint, **sizes)
        planned = planned_arguments(args, self._warmup, plan)
        logger.info("%s", plan)
        count = min(args.train_batch_size, len(train_dataset)) if args.auto_compile else 0
        batch = collator([train_dataset[index] for index in range(count)]) if count else {}
        logger.info("%s", resolve_compile(planned, model, batch, total_steps=plan.total_steps))
        self._replan = Replan(args, self._warmup, **sizes)
        return planned

    def train(self, trainer: Trainer, *, monitor: bool = True) -> None:
        """Train to the end, or load the weights of a run that is complete already.

        Everything that watches a run is added here, in the order that it needs: the monitor in front, so that trackers
        see what it measures; then the trackers and callbacks of the Trainer; then what plans again, stops at a loss
        that is not finite, records the run, keeps its settings, and shows the plan in the trackers.

        Args:
            trainer: its arguments are those that `plan` returned.
            monitor: whether a WarmupMonitor measures the warmup.

        Raises:
            UserError: the Trainer's arguments follow no plan, or name labels or a best metric that do not exist.
            NonFiniteError: the loss or its gradient was not finite.
        """
        plan = plan_of(trainer.args)
        if plan is None or self._replan is None:
            raise UserError("the Trainer's arguments follow no plan; give it args=run.plan(…).")
        recorder = RunRecorder()
        for entry in trainer.state.log_history:  # an evaluation before the training begins the log
            recorder.on_log(trainer.args, trainer.state, trainer.control, logs=entry)
        if monitor:
            watch_warmup(trainer)
        check_label_names(trainer)
        for callback in (self._replan, CheckBestMetric(), *self._guards(recorder)):
            trainer.add_callback(callback)
        track_plan(trainer)
        self._train_metrics = train_or_load_finished(trainer, self.checkpoint, total_steps=plan.total_steps)

    def callbacks(self) -> list[TrainerCallback]:
        """The callbacks of a loop of one's own, in the order that they need; `Loop` calls them.

        They check the learning rate of each update, stop at a loss that is not finite, record the run, keep its
        settings, and show its progress.
        """
        return [WarmupCallback(), *self._guards(RunRecorder()), progress_of(self._args)]

    def _guards(self, recorder: RunRecorder) -> tuple[TrainerCallback, ...]:
        return NonFiniteGuard(), recorder, KeepConfig()

    def finish(self, trainer: Trainer, metrics: dict[str, float], *, summary: str) -> None:
        """Save the model, metrics, pictures and model card, and say where they are; `summary` is one line on the run.

        Raises:
            UserError: the run was not trained by `train`.
        """
        if self._train_metrics is None:
            raise UserError("the run is not trained yet; call run.train(trainer) before run.finish(…).")
        finish_run(trainer, train_metrics=self._train_metrics, eval_metrics=metrics, summary=summary)


def _describe_size(model: nn.Module, num_samples: int, tokens_per_sample: int | None) -> str:
    name = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    size = sum(parameter.numel() for parameter in model.parameters())
    tokens = "" if tokens_per_sample is None else f" of {tokens_per_sample} tokens"
    return f"{name}, {size:,} parameters; {num_samples:,} training samples{tokens}"
