"""What a recipe leaves in its run folder: model, metrics, pictures, model card."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer

from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.reporting.card import own_model_card
from hfwarmup.reporting.curves import plot_learning_rates, plot_losses
from hfwarmup.run_folder.files import LEARNING_RATES, read_learning_rates

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Files in which a Trainer saves a model: whole, a PEFT adapter, in shards, or one that is no transformers model."""


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
        warmup_steps, name = spec.num_warmup_steps, spec.name
    plot_learning_rates(
        folder / "schedule.png",
        planned=planned,
        applied=[(update, applied) for update, _, applied in rows],
        warmup_steps=warmup_steps,
        title=f"{name}: peak {max(planned):g}, warmup {warmup_steps} of {len(planned)} updates",
    )
    plot_losses(folder / "loss.png", log_history=log_history, warmup_steps=warmup_steps)
