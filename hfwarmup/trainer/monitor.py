"""Watches a run's warmup: measures now and then, into the Trainer's log, without changing the training."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.measuring.noise_scale import NoiseScale, noise_and_signal
from hfwarmup.measuring.products import local_part
from hfwarmup.measuring.representation import angle, effective_rank, largest_relative_update, relative_change
from hfwarmup.measuring.verdict import MAX_UPDATE, MEASURED, RANK, RANK_RATIO, READ_AT, diagnose
from hfwarmup.schedules.warmup_shapes import radam
from hfwarmup.trainer.first_batches import has_samples
from hfwarmup.trainer.first_update import unwrapped
from hfwarmup.trainer.hidden_states import last_hidden_state, probe_batch
from hfwarmup.trainer.micro_batches import MicroBatchGradients
from hfwarmup.trainer.running import highest_peak_lr, is_rank_zero, planned_warmup_steps
from hfwarmup.trainer.sharpness_probe import SharpnessProbe

logger = logging.getLogger(__name__)

MARKS = 20
"""Measurements a run, at equal distances; the early updates at powers of two come on top."""

GRADIENT_NOISE, GRADIENT_SIGNAL = "gradient_noise", "gradient_signal"


def watch_warmup(trainer: Trainer, *, sharpness: bool = False) -> WarmupMonitor:
    """Add a WarmupMonitor in front of a Trainer's callbacks, so that its trackers see what is measured too."""
    monitor = WarmupMonitor(sharpness=sharpness)
    trainer.callback_handler.callbacks.insert(0, monitor)
    return monitor


class WarmupMonitor(TrainerCallback):
    """Measures at 20 points of a run, and of the updates at powers of two what they did; `watch_warmup` adds one.

    The values are in the log entry of the update that they were measured at:

    * `warmup/effective_rank`: of the last hidden state on a fixed probe batch (Roy & Vetterli 2007), after the update;
      `warmup/effective_rank_ratio`: over its value before the first update;
    * `warmup/relative_update`: the largest ||dW|| / ||W|| of a weight matrix in this update, and
      `warmup/max_relative_update` in any update measured so far (without the matrices that begin at 0, such as half of
      a LoRA adapter); `warmup/angle` (radians): the mean over the matrices;
    * `warmup/representation_change`: ||dY|| / ||Y|| of the probe's last hidden state by this update;
    * `warmup/rectification`: RAdam's variance rectification term of this update, where the optimizer has a beta2;
    * `warmup/clipped_share`: of the updates logged so far, how many had their gradient clipped;
    * `warmup/noise_scale_samples`: from the micro-batches' gradients, where an update has several; of this update
      `warmup/gradient_noise`, tr Sigma a sample, and `warmup/gradient_signal`, |G|^2; not under fp16, whose gradients
      carry the scaler's factor, nor of sharded weights. Where a `compute_loss_func` or label smoothing weighs the
      micro-batches by their labels, they are taken to have equally many;
    * `warmup/sharpness` and `warmup/sharpness_ratio`, if asked for: see SharpnessProbe. It costs several updates' time
      a measurement.

    Dropout is off while it measures, and modes, random state and gradients are as before: on one process a run with it
    and one without end with the same weights, bit by bit. A resumed run finds what it needs of its past in the log. Of
    sharded weights each rank measures its own shards, and rank 0 logs.
    """

    def __init__(self, *, sharpness: bool = False) -> None:
        self._sharpness = SharpnessProbe() if sharpness else None
        self._marks: list[int] = []
        self._initial_rank = math.nan
        self._max_update = 0.0
        self._noise_scale = NoiseScale()
        self._micro_batches = MicroBatchGradients()
        self._accumulated = 0
        self._micro_batch = (math.nan, math.nan)
        self._judged = False
        self._measured: dict[str, float] = {}
        self._probe: dict[str, Any] | None = None
        self._has_rank = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = kwargs["model"]
        if self._sharpness is not None:
            self._sharpness.check(unwrapped(kwargs["optimizer"]))
        marks = {-(-state.max_steps * mark // MARKS) for mark in range(1, MARKS + 1)}
        self._marks = sorted(mark for mark in marks if mark > state.global_step)
        matrices = (p for p in model.parameters() if p.requires_grad and p.ndim >= 2)
        self._matrices = [p for p in matrices if local_part(p.detach()).any()]
        self._before: list[Tensor] = []
        self._measured = {}
        self._micro_batches.forget()
        self._micro_batch = (math.nan, math.nan)
        self._noise_scale = _noise_scale_from(state.log_history)
        self._initial_rank, self._max_update = self._from_log(state)
        warmup_steps = planned_warmup_steps(args, state, kwargs)
        self._judged = state.global_step >= max(READ_AT * state.max_steps, warmup_steps)
        self._try_probe(model, kwargs["train_dataloader"], args, is_start=state.global_step == 0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._accumulated = 1
        several = args.gradient_accumulation_steps * args.world_size > 1
        if several and self._is_marked(args, state) and _gradients_are_whole(args):
            self._micro_batches.watch(kwargs["model"])

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._accumulated += 1

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._micro_batches.watching:
            self._micro_batch = self._micro_batches.squared_norm_and_share(accumulation=self._accumulated)
        marked = self._is_marked(args, state)
        if marked or _is_power_of_two(state.global_step + 1):
            self._before = [local_part(p.detach()).clone() for p in self._matrices]
        if marked and self._probe is not None and self._has_rank:
            self._hidden_before = last_hidden_state(kwargs["model"], self._probe, args)
        if marked and self._sharpness is not None and self._probe is not None:
            self._measured = self._sharpness.measure(kwargs["model"], unwrapped(kwargs["optimizer"]), self._probe)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        pairs = list(zip(self._before, (local_part(p.detach()) for p in self._matrices), strict=False))
        self._before = []
        largest = largest_relative_update(pairs)
        self._max_update = max(self._max_update, largest)
        if self._is_marked(args, state):
            mean_angle = sum(angle(*pair) for pair in pairs) / max(1, len(pairs))
            self._measured |= {"relative_update": largest, "angle": mean_angle}
            self._measured |= self._of_the_representation(kwargs["model"], args)
            self._measured |= _rectification(kwargs["optimizer"], state.global_step + 1)
            self._marks = [mark for mark in self._marks if mark > state.global_step + 1]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._measured:
            control.should_log = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if not self._measured or "loss" not in logs:
            return
        self._measured |= {"max_relative_update": self._max_update}
        self._measured |= self._of_the_gradient(args, state, logs)
        values = {MEASURED + name: value for name, value in self._measured.items()}
        logs.update(values)
        state.log_history[-1].update(values)
        self._measured, self._micro_batch = {}, (math.nan, math.nan)
        self._judge(args, state, kwargs)

    def _try_probe(self, model: nn.Module, dataloader: DataLoader, args: TrainingArguments, *, is_start: bool) -> None:
        """Take the probe batch and the rank at the start, or say why there is no rank."""
        self._probe, self._has_rank, reason = None, False, "the training data has no samples to ask for"
        try:
            if has_samples(dataloader):
                self._probe = probe_batch(dataloader, args)
                hidden = last_hidden_state(model, self._probe, args)
                self._initial_rank = effective_rank(hidden) if is_start else self._initial_rank
                self._has_rank = True
        except Exception as error:  # what users' data sets, collators and models raise; they train without a rank too
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if not self._has_rank and is_rank_zero():
            logger.info("no effective rank is measured: %s", reason)
        if self._probe is None and self._sharpness is not None:
            self._sharpness.refuse(reason)

    def _judge(self, args: TrainingArguments, state: TrainerState, kwargs: dict[str, Any]) -> None:
        """One warning, as soon as a too-short warmup shows."""
        if self._judged or state.global_step < READ_AT * state.max_steps:
            return
        diagnosis = diagnose(
            state.log_history,
            total_steps=state.max_steps,
            warmup_steps=planned_warmup_steps(args, state, kwargs),
            peak_lr=highest_peak_lr(kwargs["optimizer"]),
        )
        self._judged = diagnosis.verdict != "unclear"
        if diagnosis.verdict == "too steep" and is_rank_zero():
            logger.warning("%s", diagnosis)

    def _is_marked(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether the update under way is measured: the first one that is logged at or after a mark."""
        done = state.global_step + 1
        if not self._marks or done < self._marks[0]:
            return False
        fits = args.logging_strategy == "steps" and 0 < state.logging_steps <= state.max_steps / MARKS
        return not fits or done % int(state.logging_steps) == 0

    def _of_the_representation(self, model: nn.Module, args: TrainingArguments) -> dict[str, float]:
        if self._probe is None or not self._has_rank:
            return {}
        hidden = last_hidden_state(model, self._probe, args)
        rank = effective_rank(hidden)
        return {
            "effective_rank": rank,
            "effective_rank_ratio": rank / self._initial_rank if self._initial_rank else math.nan,
            "representation_change": relative_change(self._hidden_before, hidden),
        }

    def _of_the_gradient(
        self, args: TrainingArguments, state: TrainerState, logs: Mapping[str, Any]
    ) -> dict[str, float]:
        norms = [float(entry["grad_norm"]) for entry in state.log_history if "grad_norm" in entry]
        measured = {}
        if norms and args.max_grad_norm > 0:
            measured["clipped_share"] = sum(norm > args.max_grad_norm for norm in norms) / len(norms)
        small_squared_norm, share = self._micro_batch
        if "grad_norm" in logs and share < args.world_size:  # else one micro-batch is all, as at the end of an epoch
            of_a_rank = (state.train_batch_size or args.train_batch_size) * self._accumulated
            noise, signal = noise_and_signal(
                small_squared_norm,
                float(logs["grad_norm"]) ** 2,
                small_batch=of_a_rank * share,
                big_batch=of_a_rank * args.world_size,
            )
            self._noise_scale.add(noise, signal)
            measured |= {GRADIENT_NOISE: noise, GRADIENT_SIGNAL: signal}
            measured["noise_scale_samples"] = self._noise_scale.samples
        return measured

    def _from_log(self, state: TrainerState) -> tuple[float, float]:
        """The rank before the first update and the largest relative update of the run before a resume."""
        entries = [entry for entry in state.log_history if MAX_UPDATE in entry]
        if not entries:
            return math.nan, 0.0
        ranked = (entry for entry in entries if entry.get(RANK_RATIO))  # the rank may have fallen to 0
        first = next(ranked, {RANK: math.nan, RANK_RATIO: 1.0})
        return first[RANK] / first[RANK_RATIO], entries[-1][MAX_UPDATE]


def _noise_scale_from(log: list[dict[str, float]]) -> NoiseScale:
    """The averages over the updates before a resume."""
    scale = NoiseScale()
    for entry in log:
        if MEASURED + GRADIENT_NOISE in entry:
            scale.add(entry[MEASURED + GRADIENT_NOISE], entry[MEASURED + GRADIENT_SIGNAL])
    return scale


def _gradients_are_whole(args: TrainingArguments) -> bool:
    """Whether a backward pass leaves the gradient of its own batch: neither scaled nor scattered over the ranks."""
    scattered = (DistributedType.FSDP, DistributedType.DEEPSPEED)
    return not args.fp16 and AcceleratorState().distributed_type not in scattered


def _rectification(optimizer: torch.optim.Optimizer, step: int) -> dict[str, float]:
    betas = optimizer.param_groups[0].get("betas")
    if betas is None or betas[1] <= 0.6:  # below it no update is ever rectified
        return {}
    return {"rectification": radam(betas[1])(step)}


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
