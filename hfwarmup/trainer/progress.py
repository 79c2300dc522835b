"""What a user sees while a run trains: progress bars, and one plain line for each log entry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as Arguments

from hfwarmup.measuring.verdict import MEASURED

logger = logging.getLogger(__name__)

HIDDEN = ("epoch", "total_flos", "eval_runtime", "eval_model_preparation_time")
"""Keys of a log entry that its line leaves out, as it does speeds and the monitor's measurements."""


class LogLines(TrainerCallback):
    """Logs each entry of the training in one line, from rank 0, unless the monitor alone made the entry.

    Evaluations after the training are not logged here; the recipe reports them.
    """

    _training = False

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self._training = True

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_train_end(args, state, control, **kwargs)
        self._training = False

    def on_log(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        entry = logs or {}
        measured = any(key.startswith(MEASURED) for key in entry)
        due = args.logging_strategy != "steps" or state.global_step % max(state.logging_steps, 1) == 0
        if self._training and state.is_world_process_zero and (due or not measured):
            logger.info("%s", describe_log(entry, update=state.global_step, total_steps=state.max_steps))


class RunProgress(LogLines, ProgressCallback):
    """LogLines with progress bars for the training and the evaluations."""


def progress_of(args: Arguments) -> LogLines:
    """The callback that shows a run's progress, without bars under `disable_tqdm`."""
    return LogLines() if args.disable_tqdm else RunProgress()


def show_progress(trainer: Trainer) -> None:
    """Let a Trainer log its entries in plain lines instead of printing dicts."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(progress_of(trainer.args))


def describe_log(entry: Mapping[str, Any], *, update: int, total_steps: int) -> str:
    """A log entry in one line.

    >>> describe_log({"loss": 6.7112, "grad_norm": 0.7, "warmup/angle": 0.1, "epoch": 0.1}, update=20, total_steps=40)
    'update 20 of 40: loss 6.711, grad_norm 0.7'
    """
    shown = {
        key: _number(value)
        for key, value in entry.items()
        if key not in HIDDEN and not key.startswith(MEASURED) and not key.endswith("_per_second")
    }
    return f"update {update} of {total_steps}: " + ", ".join(f"{key} {value}" for key, value in shown.items())


def _number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
