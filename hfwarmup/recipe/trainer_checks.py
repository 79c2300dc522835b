"""Settings that only the Trainer's own data and metrics can judge, checked as soon as these are there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.errors import UserError, unknown_choice
from hfwarmup.trainer.first_batches import collate_samples


class CheckBestMetric(TrainerCallback):
    """Raises UserError where no evaluation has `metric_for_best_model`; a Trainer would raise a KeyError."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        name, metrics = args.metric_for_best_model, kwargs["metrics"]
        if name is not None and f"eval_{name.removeprefix('eval_')}" not in metrics:
            raise UserError(unknown_choice("metric_for_best_model", name, list(metrics)))


def check_label_names(trainer: Trainer) -> None:
    """Raise UserError where the batches have none of `label_names`: an evaluation would have no loss."""
    names = trainer.args.label_names or []
    data: Any = SimpleNamespace(dataset=trainer.train_dataset, collate_fn=trainer.data_collator)
    batch = collate_samples(data, [0]) if names else {}
    if names and not set(names) & set(batch):
        raise UserError(
            f"label_names={names}: a batch has {', '.join(batch)}; name the labels among them, or remove it."
        )
