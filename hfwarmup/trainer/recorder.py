"""Records a run in its folder while it trains: how it was started, its log, its learning rates."""

from __future__ import annotations

import json
import logging
import zlib
from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfwarmup.errors import RunStopped
from hfwarmup.run_folder.files import (
    LEARNING_RATES,
    LOG,
    RUN,
    append_log,
    command_history,
    log_line,
    read_learning_rates,
    write_atomically,
    write_learning_rates,
)
from hfwarmup.trainer.planning import plan_of
from hfwarmup.trainer.provenance import command_of_this_process, describe_environment
from hfwarmup.trainer.running import is_rank_zero, own_scheduler, peak_lrs, planned_warmup_steps

logger = logging.getLogger(__name__)


class RunRecorder(TrainerCallback):
    """Records a run in its folder, from rank 0, so that it can be read while it still trains.

    * `run.json`, when the training begins: the command, the plan with its reasons, the schedule, versions and device.
    * `log.jsonl`, at once: one line for each log entry.
    * `learning_rates.csv`, at every checkpoint and at the end: update, planned, applied. At the end all ranks compare
      the rates that they applied, and a difference is an error.

    A resumed run continues the record of its checkpoint. The plan is that of the Trainer's arguments, so a Replan
    callback must come before this one.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, float]] = []
        self._log: Path | None = None
        self._early: list[dict[str, Any]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        folder = Path(str(args.output_dir))
        record = folder / LEARNING_RATES
        earlier = read_learning_rates(record) if state.global_step and record.exists() else []
        self._rows = [row for row in earlier if row[0] < state.global_step]
        if is_rank_zero():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / RUN, json.dumps(self._describe(folder / RUN, args, state, kwargs), indent=2))
            self._log = folder / LOG
            write_atomically(self._log, "".join(map(log_line, [*self._early, *state.log_history])))
            self._early = []

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not is_rank_zero():
            return
        entry = {**kwargs["logs"], "step": state.global_step}
        if self._log is None:  # an evaluation before the training
            self._early.append(entry)
            return
        append_log(self._log, entry)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        scheduler = own_scheduler(kwargs)
        applied = float(kwargs["optimizer"].param_groups[0]["lr"])
        planned = applied if scheduler is None else float(scheduler.get_last_lr()[0])
        self._rows.append((state.global_step, planned, applied))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if control.should_save:  # before the checkpoint, or a run that is killed in between lacks the rows
            self._write_rates(args)

    on_epoch_end = on_step_end

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._write_rates(args)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._write_rates(args)
        if not dist.is_initialized():
            return
        checksum = zlib.crc32(array("d", [row[2] for row in self._rows]).tobytes())
        checksums: list[int] = [0] * dist.get_world_size()
        dist.all_gather_object(checksums, checksum)
        if len(set(checksums)) > 1:
            raise RunStopped(
                f"the ranks applied different learning rates (checksums {checksums}); look for an optimizer or a "
                "callback that depends on the rank."
            )
        if is_rank_zero():
            logger.info("all %d ranks applied the same %d learning rates", len(checksums), len(self._rows))

    def _write_rates(self, args: TrainingArguments) -> None:
        if is_rank_zero():
            write_learning_rates(Path(str(args.output_dir), LEARNING_RATES), self._rows)

    def _describe(
        self, path: Path, args: TrainingArguments, state: TrainerState, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """What `run.json` holds. A resumed run keeps the earlier commands."""
        scheduler, plan = own_scheduler(kwargs), plan_of(args)
        resumed = state.global_step and path.exists()
        earlier = json.loads(path.read_text(encoding="utf-8"))["commands"] if resumed else []
        return {
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "commands": command_history(earlier, state.global_step, command_of_this_process(args.world_size)),
            "max_steps": state.max_steps,
            "warmup_steps": planned_warmup_steps(args, state, kwargs),
            "peak_lr": max(peak_lrs(kwargs["optimizer"])),
            "plan": None if plan is None else json.loads(plan.to_json()),
            "schedule": None if scheduler is None else scheduler.spec.to_dict(),
            "scheduler": type(kwargs["lr_scheduler"]).__name__ if scheduler is None else scheduler.spec.name,
            **describe_environment(args, kwargs["model"]),
        }
