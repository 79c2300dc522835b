"""Shows the plan in a Trainer's experiment trackers: as hyperparameters, and the schedule as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.image import imread
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, TrackioCallback

from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.planning.plan import Plan
from hfwarmup.reporting.curves import plot_learning_rates
from hfwarmup.trainer.compat import callbacks_of
from hfwarmup.trainer.planning import plan_of
from hfwarmup.trainer.running import own_scheduler

PICTURE = "warmup/schedule"
"""The picture's name in a tracker."""


def track_plan(trainer: Trainer) -> None:
    """Show the plan and the schedule's curve in TensorBoard and Trackio, if `report_to` names them.

    Without one of these trackers, or without a plan, this does nothing.
    """
    trainer.add_callback(PlanTracker(callbacks_of(trainer)))


class PlanTracker(TrainerCallback):
    """Writes the plan when the training begins, after the trackers among `callbacks`; `track_plan` adds one."""

    def __init__(self, callbacks: Sequence[TrainerCallback]) -> None:
        self._callbacks = callbacks

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trackers = [each for each in self._callbacks if isinstance(each, TensorBoardCallback | TrackioCallback)]
        plan = plan_of(args)
        if plan is None or not trackers or not state.is_world_process_zero:
            return
        scheduler = own_scheduler(kwargs)
        picture = None if scheduler is None else _draw(Path(str(args.output_dir)), scheduler)
        for tracker in trackers:
            if isinstance(tracker, TensorBoardCallback):
                _write_to_tensorboard(tracker.tb_writer, plan, picture)
            else:
                _write_to_trackio(plan, picture)


def hyperparameters(plan: Plan) -> dict[str, float | str]:
    """The values by which a tracker can sort runs.

    >>> from hfwarmup.planning.plan import plan_run
    >>> hyperparameters(plan_run(learning_rate=1e-3, warmup="5%", total_steps=200, global_batch_size=16))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'peak_lr': 0.001, 'warmup': '5%', 'warmup_steps': 10, 'warmup_fraction': 0.05, 'total_steps': 200,
     'global_batch_size': 16, 'batch_scale': 1.0}
    """
    return {
        "peak_lr": plan.peak_lr,
        "warmup": str(plan.warmup),
        "warmup_steps": plan.warmup_steps,
        "warmup_fraction": plan.warmup_fraction,
        "total_steps": plan.total_steps,
        "global_batch_size": plan.global_batch_size,
        "batch_scale": plan.scale,
    }


def _draw(folder: Path, scheduler: WarmupScheduler) -> Path:
    spec = scheduler.spec
    picture = folder / "schedule.png"
    plot_learning_rates(
        picture,
        planned=[spec.learning_rates(update)[0] for update in range(spec.total_steps or 0)],
        applied=[],
        warmup_steps=spec.warmup_steps,
        title=f"{spec.name}, as planned",
    )
    return picture


def _write_to_tensorboard(writer: Any, plan: Plan, picture: Path | None) -> None:
    from torch.utils.tensorboard.summary import hparams

    # SummaryWriter.add_hparams does the same, but starts a run of its own for them.
    experiment, session, _ = hparams(hyperparameters(plan), {"eval/loss": 0.0, "train/loss": 0.0})
    for summary in (experiment, session):
        writer.file_writer.add_summary(summary)
    writer.add_text("warmup/plan", "\n\n".join([*plan.reasons, *plan.warnings]))
    if picture is not None:
        writer.add_image(PICTURE, imread(picture), dataformats="HWC")


def _write_to_trackio(plan: Plan, picture: Path | None) -> None:
    import trackio

    values = {f"warmup/{name}": value for name, value in hyperparameters(plan).items()}
    trackio.config.update({**values, "warmup/reasons": [*plan.reasons, *plan.warnings]})
    if picture is not None:
        trackio.log({PICTURE: trackio.Image(str(picture))}, step=0)
