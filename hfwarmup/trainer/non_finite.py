"""Stops a run at a loss or gradient that is not finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.errors import NonFiniteError
from hfwarmup.run_folder.files import LOG, append_log
from hfwarmup.trainer.running import is_rank_zero


class NonFiniteGuard(TrainerCallback):
    """Stops a run at a loss or gradient that is not finite, before it reaches the weights.

    A non-finite loss makes the gradient non-finite, and the norm of all gradients sees any such element, so one norm an
    update decides; the run's log.jsonl says that it was stopped. Under fp16 the gradient scaler skips such updates by
    itself, and the guard leaves them to it.
    """

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.fp16:
            return
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if not math.isfinite(norm.item()):
            lr = kwargs["optimizer"].param_groups[0]["lr"]
            log = Path(str(args.output_dir), LOG)
            if is_rank_zero() and log.exists():
                append_log(log, {"step": state.global_step, "stopped": "the loss or its gradient was not finite"})
            raise NonFiniteError(
                f"update {state.global_step}: the loss or its gradient is not finite (gradient norm {norm.item()}, "
                f"learning rate {float(lr):g}); stopped before the weights changed; "
                "lower learning_rate or lengthen warmup."
            )
