"""Train a run to its end, or load what is finished already."""

from __future__ import annotations

import logging
from pathlib import Path

from transformers import Trainer, TrainerState

from hfwarmup.trainer.compat import TRAINER_STATE_NAME, load_weights
from hfwarmup.trainer.progress import show_progress

logger = logging.getLogger(__name__)


def train_or_load_finished(trainer: Trainer, checkpoint: str | None, *, total_steps: int) -> dict[str, float]:
    """Train to the end, from `checkpoint` if there is one, and return the metrics of the training.

    When the checkpoint is at the end already, at update `total_steps`, nothing is trained, where a Trainer would make
    one more update. The weights and the log are loaded, so that the results can be made again. With
    load_best_model_at_end the weights are those of the best checkpoint, as after the training itself.
    """
    state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))) if checkpoint else None
    show_progress(trainer)
    if checkpoint is None or state is None or state.global_step < total_steps:
        return trainer.train(resume_from_checkpoint=checkpoint).metrics
    logger.info("the run is complete, at update %d of %d: nothing is trained", state.global_step, total_steps)
    best = _best_checkpoint(checkpoint, state) if trainer.args.load_best_model_at_end else None
    load_weights(trainer, best or checkpoint)
    trainer.state.global_step, trainer.state.log_history = state.global_step, state.log_history
    trainer.state.best_model_checkpoint, trainer.state.best_metric = best, state.best_metric
    trainer.create_optimizer_and_scheduler(num_training_steps=total_steps)
    return {}


def _best_checkpoint(last: str, state: TrainerState) -> str | None:
    """The best checkpoint of a run, looked for beside its last one, as the folder may have moved; None without one."""
    if state.best_model_checkpoint is None:
        return None
    best = Path(last).parent / Path(state.best_model_checkpoint).name
    if best.is_dir():
        return str(best)
    logger.warning("the best checkpoint, %s, is gone; loading the weights of the last one instead", best.name)
    return None
