"""What a finished run leaves in its folder: model, metrics, pictures, model card."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer

from hfwarmup.optim.scheduler import WarmupScheduler
from hfwarmup.reporting.card import write_card
from hfwarmup.reporting.curves import plot_learning_rates, plot_losses
from hfwarmup.run_folder.files import LEARNING_RATES, read_learning_rates
from hfwarmup.trainer.compat import replace_model_card

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Files in which a Trainer saves a model: whole, a PEFT adapter, shards, or a model that is not of transformers."""


def finish_run(
    trainer: Trainer, *, train_metrics: dict[str, float], eval_metrics: dict[str, float], summary: str
) -> None:
    """Save the model, metrics, pictures and model card of a finished run, and say where they are.

    The metrics go into `train_results.json`, `eval_results.json` and, together, `all_results.json`. `summary` is one
    line: for the user, and the first of the card. The model is saved last, since with `push_to_hub` this publishes the
    folder.
    """
    trainer.save_metrics("train", train_metrics)
    trainer.save_metrics("eval", eval_metrics)
    trainer.save_state()
    folder = Path(str(trainer.args.output_dir))
    if trainer.is_world_process_zero():
        draw_run(folder, trainer.lr_scheduler, trainer.state.log_history)
    use_own_card(trainer, summary=summary)
    trainer.save_model()
    trainer.create_model_card()  # again, since peft saves a card of its own with the adapter
    if trainer.is_world_process_zero():
        say_where(folder, summary)


def say_where(folder: Path, summary: str) -> None:
    """Log the summary of a run and where its results are."""
    weights = next((name for name in WEIGHTS if (folder / name).exists()), "")
    logger.info("%s", summary)
    logger.info("model     %s", folder / weights)
    logger.info("metrics   %s", folder / "all_results.json")
    logger.info("pictures  %s %s", folder / "schedule.png", folder / "loss.png")
    logger.info("card      %s", folder / "README.md")
    logger.info("to look at it: hfwarmup report %s", folder)


def draw_run(folder: Path, scheduler: LRScheduler | None, log_history: Sequence[Mapping[str, Any]]) -> None:
    """Write `schedule.png`, with the planned and the applied learning rate, and `loss.png` into the folder of a run.

    The rates are those in `learning_rates.csv`; after its last row, those that a WarmupScheduler would go on with. The
    first parameter group is shown. `log_history` is the Trainer's.
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


def use_own_card(trainer: Trainer, *, summary: str) -> None:
    """Let a Trainer write this package's model card: it writes one before each push to the hub.

    Without this, `push_to_hub` would replace README.md by a card that does not mention the schedule.
    """
    folder = Path(str(trainer.args.output_dir))
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = getattr(model, "config", None)
    base_model = getattr(config, "name_or_path", "") or ""
    data = {
        "library_name": "peft" if hasattr(model, "peft_config") else "transformers" if config is not None else None,
        "base_model": base_model if base_model and not Path(base_model).exists() else None,
    }

    def create(model_name: str | None = None, tags: str | Sequence[str] | None = None, **own: Any) -> None:
        if trainer.is_world_process_zero():
            more = [tags] if isinstance(tags, str) else list(tags or ())
            write_card(folder, summary=summary, model_name=model_name, tags=more, **{**data, **own})

    replace_model_card(trainer, create)
