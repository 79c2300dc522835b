"""What a recipe leaves in its run folder: model, metrics, pictures, model card."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.reporting.card import write_card
from hfwarmup.reporting.curves import plot_learning_rates, plot_losses
from hfwarmup.run_folder.files import LEARNING_RATES, read_learning_rates
from hfwarmup.trainer.progress import show_progress

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Files in which a Trainer saves a model: whole, a PEFT adapter, in shards, or one that is no transformers model."""


def train_to_end(trainer: Trainer, checkpoint: str | None, *, total_steps: int) -> dict[str, float]:
    """Train to the end, from `checkpoint` if there is one, and return the metrics of the training.

    A run that is at its end already, `total_steps` updates, is not trained: its weights and its log are loaded, so that
    what follows the training can be done again. With load_best_model_at_end the weights are those of the best
    checkpoint, as at the end of the training itself. The Trainer by itself would make one more update.
    """
    state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))) if checkpoint else None
    show_progress(trainer)
    if checkpoint is None or state is None or state.global_step < total_steps:
        return trainer.train(resume_from_checkpoint=checkpoint).metrics
    logger.info("the run is at its end already, update %d of %d: nothing is trained", state.global_step, total_steps)
    best = _best_checkpoint(checkpoint, state) if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(best or checkpoint)
    trainer.state.global_step, trainer.state.log_history = state.global_step, state.log_history
    trainer.state.best_model_checkpoint, trainer.state.best_metric = best, state.best_metric
    trainer.create_optimizer_and_scheduler(num_training_steps=total_steps)
    return {}


def _best_checkpoint(last: str, state: TrainerState) -> str | None:
    """The best checkpoint of the run, beside its `last` one wherever the folder is by now; None if it named none."""
    if state.best_model_checkpoint is None:
        return None
    best = Path(last).parent / Path(state.best_model_checkpoint).name
    if best.is_dir():
        return str(best)
    logger.warning("the best checkpoint, %s, is gone: the last one's weights are loaded", best.name)
    return None


def finish_run(
    trainer: Trainer, *, train_metrics: dict[str, float], eval_metrics: dict[str, float], summary: str
) -> None:
    """Save a finished run's model, metrics, pictures and model card, and say where they are. The last call of a recipe.

    The metrics go into `train_results.json`, `eval_results.json` and, together, `all_results.json`; `summary` is one
    line for the user and the first of the card. The model comes last, since with `push_to_hub` saving it publishes the
    folder. `run_recipe` then destroys the process group.
    """
    trainer.save_metrics("train", train_metrics)
    trainer.save_metrics("eval", eval_metrics)
    trainer.save_state()
    if trainer.is_world_process_zero():
        folder = Path(str(trainer.args.output_dir))
        draw_run(folder, trainer.lr_scheduler, trainer.state.log_history)
    own_model_card(trainer, summary=summary)
    trainer.save_model()
    trainer.create_model_card()  # once more: peft saves one of its own with the adapter
    if trainer.is_world_process_zero():
        logger.info("%s", summary)
        weights = next((name for name in WEIGHTS if (folder / name).exists()), "")
        logger.info("model     %s", folder / weights)
        logger.info("metrics   %s", folder / "all_results.json")
        logger.info("pictures  %s %s", folder / "schedule.png", folder / "loss.png")
        logger.info("card      %s", folder / "README.md")
        logger.info("to look at it: hfwarmup report %s", folder)


def draw_run(folder: Path, scheduler: LRScheduler | None, log_history: Sequence[Mapping[str, Any]]) -> None:
    """Write `schedule.png` (learning rate planned and applied) and `loss.png` into a run's folder.

    The rates are those of the folder's `learning_rates.csv`, beyond its end those that a WarmupScheduler goes on with;
    `log_history` is the Trainer's. The first parameter group is shown.
    """
    rows = read_learning_rates(folder / LEARNING_RATES)
    planned, warmup_steps, name = [row[1] for row in rows], 0, type(scheduler).__name__
    if isinstance(scheduler, WarmupScheduler):
        spec = scheduler.spec
        planned += [spec.learning_rates(step)[0] for step in range(len(rows), spec.total_steps or 0)]
        warmup_steps, name = spec.warmup_steps, spec.name
    plot_learning_rates(
        folder / "schedule.png",
        planned=planned,
        applied=[(update, applied) for update, _, applied in rows],
        warmup_steps=warmup_steps,
        title=f"{name}: peak {max(planned):g}, warmup {warmup_steps} of {len(planned)} updates",
    )
    plot_losses(folder / "loss.png", log_history=log_history, warmup_steps=warmup_steps)


def own_model_card(trainer: Trainer, *, summary: str) -> None:
    """Make this card the one that the Trainer writes, whenever it does: before each push it writes it anew.

    Without this, `push_to_hub` replaces README.md by a card that knows nothing of the schedule.
    """
    folder = Path(str(trainer.args.output_dir))
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "config", None)
    base_model = getattr(config, "_name_or_path", "")
    data = {
        "library_name": "peft" if hasattr(model, "peft_config") else "transformers" if config is not None else None,
        "base_model": base_model if base_model and not Path(base_model).exists() else None,
    }

    def create(model_name: str | None = None, tags: str | Sequence[str] | None = None, **own: Any) -> None:
        if trainer.is_world_process_zero():
            more = [tags] if isinstance(tags, str) else list(tags or ())
            write_card(folder, summary=summary, model_name=model_name, tags=more, **{**data, **own})

    trainer.create_model_card = create  # type: ignore[assignment]
