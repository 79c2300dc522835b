"""Watches a run's warmup: when to measure, the values in the Trainer's log, and one warning; training is unchanged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.measuring.verdict import MEASURED, READ_AT, diagnose
from hfwarmup.trainer.compat import callbacks_of
from hfwarmup.trainer.first_update import unwrapped
from hfwarmup.trainer.probes import probe_kinds
from hfwarmup.trainer.probes.base import Moment, Probe
from hfwarmup.trainer.probes.sharpness import SharpnessProbe
from hfwarmup.trainer.running import is_rank_zero, peak_lrs, planned_warmup_steps

logger = logging.getLogger(__name__)

MARKS = 20
"""Measurements in a run, at equal distances."""


def watch_warmup(trainer: Trainer, *, sharpness: bool = False) -> WarmupMonitor:
    """Add a WarmupMonitor to a Trainer, before its other callbacks, so that its trackers get the values too."""
    monitor = WarmupMonitor(sharpness=sharpness)
    callbacks_of(trainer).insert(0, monitor)
    return monitor


class WarmupMonitor(TrainerCallback):
    """Measures 20 updates of a run and adds the values to their log entries, as `warmup/<name>`; see `watch_warmup`.

    Each file of `hfwarmup/trainer/probes` is one measurement, and the docstring of its class lists the values. The
    sharpness is measured only with `sharpness=True`: each measurement takes as long as several updates.

    Dropout is off while it measures; afterwards modes, random state and gradients are what they were. On one process a
    run with the monitor and a run without it end with the same weights, bit by bit. A resumed run goes on from the
    values in its log. If the warmup was too short, the monitor warns once. Every rank measures, and rank 0 logs.
    """

    def __init__(self, *, sharpness: bool = False) -> None:
        self._probes = [kind() for kind in probe_kinds() if sharpness or kind is not SharpnessProbe]
        self._awaits_log = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        marks = {-(-state.max_steps * mark // MARKS) for mark in range(1, MARKS + 1)}
        self._marks = sorted(mark for mark in marks if mark > state.global_step)
        self._marked = self._awaits_log = False
        self._micro_batches = 0
        warmup_steps = planned_warmup_steps(args, state, kwargs)
        self._judged = state.global_step >= max(READ_AT * state.max_steps, warmup_steps)
        past, moment = _logged_values(state), self._moment(args, state, kwargs)
        for probe in self._probes:
            probe.resume(past)
            probe.begin(moment)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._micro_batches = 1
        self._marked = self._is_marked(args, state)
        moment = self._moment(args, state, kwargs)
        for probe in self._probes_due(state):
            probe.before_gradients(moment)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._micro_batches += 1

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        moment = self._moment(args, state, kwargs)
        for probe in self._probes_due(state):
            probe.before_update(moment)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        moment = self._moment(args, state, kwargs)
        for probe in self._probes_due(state):
            probe.after_update(moment)
        if self._marked:
            self._awaits_log = True
            self._marks = [mark for mark in self._marks if mark > state.global_step + 1]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._awaits_log:
            control.should_log = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._awaits_log or "loss" not in kwargs["logs"]:
            return
        self._awaits_log = False
        moment = self._moment(args, state, kwargs)
        measured = [item for probe in self._probes for item in probe.values(moment).items()]
        values = {MEASURED + name: value for name, value in measured}
        kwargs["logs"].update(values)
        state.log_history[-1].update(values)
        self._judge(args, state, kwargs)

    def _is_marked(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether the update that begins is the first one at or after a mark that is logged."""
        update = state.global_step + 1
        if not self._marks or update < self._marks[0]:
            return False
        fits = args.logging_strategy == "steps" and 0 < state.logging_steps <= state.max_steps / MARKS
        return not fits or update % int(state.logging_steps) == 0

    def _probes_due(self, state: TrainerState) -> list[Probe]:
        """The probes that measure the update under way."""
        update = state.global_step + 1
        is_power_of_two = update & (update - 1) == 0
        return [probe for probe in self._probes if self._marked or (is_power_of_two and probe.at_powers_of_two)]

    def _moment(self, args: TrainingArguments, state: TrainerState, kwargs: Mapping[str, Any]) -> Moment:
        return Moment(
            model=kwargs["model"],
            optimizer=unwrapped(kwargs["optimizer"]),
            args=args,
            state=state,
            dataloader=kwargs["train_dataloader"],
            micro_batches=self._micro_batches,
            marked=self._marked,
        )

    def _judge(self, args: TrainingArguments, state: TrainerState, kwargs: dict[str, Any]) -> None:
        """Warn once, as soon as the log shows that the warmup was too short."""
        if self._judged or state.global_step < READ_AT * state.max_steps:
            return
        diagnosis = diagnose(
            state.log_history,
            total_steps=state.max_steps,
            warmup_steps=planned_warmup_steps(args, state, kwargs),
            peak_lr=max(peak_lrs(kwargs["optimizer"])),
        )
        self._judged = diagnosis.verdict != "unclear"
        if diagnosis.verdict == "too steep" and is_rank_zero():
            logger.warning("%s", diagnosis)


def _logged_values(state: TrainerState) -> list[dict[str, float]]:
    """What the monitor logged before a resume: one mapping a marked update, without the prefix of the names."""
    logged = (
        {name.removeprefix(MEASURED): value for name, value in entry.items() if name.startswith(MEASURED)}
        for entry in state.log_history
    )
    return [values for values in logged if values]
