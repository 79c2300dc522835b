"""Stops a run at a loss or gradient that is not finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.errors import NonFiniteError
from hfwarmup.run_folder.files import LOG, append_log
from hfwarmup.trainer.running import is_rank_zero


class NonFiniteGuard(TrainerCallback):
    """Stops a run at a loss or gradient that is not finite, before the weights change.

    A non-finite loss makes the gradient non-finite, and one such element makes the norm of all gradients non-finite, so
    one norm an update is enough. The run's log.jsonl then says why it stopped. Under fp16 the guard does nothing, since
    the gradient scaler skips such updates.
    """

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.fp16:
            return
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if math.isfinite(norm.item()):
            return
        log = Path(str(args.output_dir), LOG)
        if is_rank_zero() and log.exists():
            append_log(log, {"step": state.global_step, "stopped": "the loss or its gradient was not finite"})
        learning_rate = float(kwargs["optimizer"].param_groups[0]["lr"])
        raise NonFiniteError(
            f"update {state.global_step}: the loss or its gradient is not finite (gradient norm {norm.item()}, "
            f"learning rate {learning_rate:g}); stopped before the weights changed; lower learning_rate or lengthen "
            "warmup."
        )
