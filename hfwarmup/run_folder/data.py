"""What a run folder says, as plain data; a run that is still being made as far as it is. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfwarmup.errors import UserError
from hfwarmup.measuring.verdict import Diagnosis, diagnose
from hfwarmup.reporting.text import told_apart
from hfwarmup.run_folder.files import LEARNING_RATES, LOG, RUN, read_learning_rates, read_log
from hfwarmup.schedules.spec import ScheduleSpec

RESULTS, TRAINER_STATE = "all_results.json", "trainer_state.json"

Points = list[tuple[int, float]]
"""(update, value), in the order of the run."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """One run, as its folder has it."""

    name: str
    """the folder's name"""
    about: dict[str, Any]
    """`run.json`: commands, plan, versions, device; empty when it is missing"""
    spec: ScheduleSpec | None
    """the schedule, where it is one of this package"""
    rates: tuple[tuple[int, float, float], ...]
    """(0-based update, planned, applied) as far as it is on record"""
    log: tuple[dict[str, Any], ...]
    """the Trainer's log entries, each with its `step`"""
    results: dict[str, Any]
    """`all_results.json`: the metrics of a finished run"""
    missing: tuple[str, ...]
    """one line for each thing that the folder does not have, or not yet"""

    @property
    def updates(self) -> int:
        """Updates made."""
        return max([entry["step"] for entry in self.log] + [row[0] + 1 for row in self.rates[-1:]], default=0)

    @property
    def total_steps(self) -> int:
        """Updates of the whole run, or those made where that is not known."""
        return self.about.get("max_steps") or self.updates

    @property
    def warmup_steps(self) -> int:
        """Updates to the peak; 0 where the schedule is not known."""
        return 0 if self.spec is None else self.spec.warmup_steps

    @property
    def diagnosis(self) -> Diagnosis | None:
        """Whether the warmup was long enough; None where peak and warmup are not on record."""
        if not {"max_steps", "warmup_steps", "peak_lr"} <= self.about.keys():
            return None
        return diagnose(
            self.log,
            total_steps=self.about["max_steps"],
            warmup_steps=self.about["warmup_steps"],
            peak_lr=self.about["peak_lr"],
        )

    def series(self, key: str) -> Points:
        """The values of a key of the log; of an update that was logged twice the last one."""
        values = {entry["step"]: float(entry[key]) for entry in self.log if isinstance(entry.get(key), int | float)}
        return list(values.items())

    def logged_keys(self) -> list[str]:
        """The keys of the log, in the order of their appearance."""
        return list(dict.fromkeys(key for entry in self.log for key in entry))


def read_run(folder: Path) -> RunData:
    """Read a run folder: one of a recipe or of a RunRecorder, or as far as possible that of any Trainer.

    Raises ValueError when it is no folder of a run.
    """
    about, results = (_read_object(folder / name) for name in (RUN, RESULTS))
    log = _read_log(folder)
    if not about and not log:
        raise UserError(
            f"{folder} holds no run: neither {RUN} nor {LOG} nor {TRAINER_STATE} is there; give a run's output_dir."
        )
    record = folder / LEARNING_RATES
    rates = read_learning_rates(record) if record.exists() else []
    logged = [(entry["step"] - 1, float(entry["learning_rate"])) for entry in log if "learning_rate" in entry]
    rates += [(update, rate, rate) for update, rate in logged if update >= len(rates)]
    run = RunData(
        name=folder.resolve().name,
        about=about,
        spec=_read_spec(about.get("schedule")),
        rates=tuple(rates),
        log=tuple(log),
        results=results,
        missing=(),
    )
    return replace(run, missing=tuple(_missing(run, folder)))


def read_runs(folders: Sequence[Path]) -> list[RunData]:
    """Read several run folders; where two have one name, their paths are the names."""
    runs = [read_run(folder) for folder in folders]
    names = told_apart([run.name for run in runs], folders)
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def planned_rates(run: RunData) -> Points:
    """The planned learning rate of each update: as recorded, and from there on as the schedule goes on.

    A plateau is not drawn into the future, since it depends on evaluations to come.
    """
    recorded = [(update, planned) for update, planned, _ in run.rates]
    if run.spec is None or run.spec.resolved.decay == "plateau":
        return recorded
    first = recorded[-1][0] + 1 if recorded else 0
    whole = len(recorded) == first  # a log may have every tenth update only
    begin = first if whole else 0
    return (recorded if whole else []) + [
        (update, run.spec.learning_rates(update)[0]) for update in range(begin, run.total_steps)
    ]


def _read_object(path: Path) -> dict[str, Any]:
    """The map of a JSON file, empty where there is no file; ValueError with the file's name for anything else."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); put it right, or move it away.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no map of names to values; put it right, or move it away.")
    return found


def _read_log(folder: Path) -> list[dict[str, Any]]:
    """The log of the run, or what any Trainer keeps in the folder or in its last checkpoint."""
    if (folder / LOG).exists():
        return read_log(folder / LOG)
    checkpoints = sorted(folder.glob(f"checkpoint-*/{TRAINER_STATE}"), key=lambda path: path.stat().st_mtime)
    for path in [folder / TRAINER_STATE, *reversed(checkpoints)]:
        if path.exists():
            return _read_object(path).get("log_history", [])
    return []


def _read_spec(schedule: dict[str, Any] | None) -> ScheduleSpec | None:
    """The schedule, unless it is a user's own, which is code that no file holds."""
    if not schedule:
        return None
    spec = ScheduleSpec(**schedule)
    try:
        spec.learning_rates(0)
    except ValueError:
        return None
    return spec


def _missing(run: RunData, folder: Path) -> Iterable[str]:
    if not run.about:
        yield f"no {RUN}: plan, schedule, command and environment are not on record (RunRecorder writes it)."
    elif run.spec is None:
        yield f"the schedule {run.about['scheduler']} is not one of hfwarmup's names: its warmup is not drawn."
    if not (folder / LEARNING_RATES).exists():
        yield f"no {LEARNING_RATES} yet: the learning rates are those of the log."
    if not run.results:
        yield f"no {RESULTS} yet: {run.updates} of {run.total_steps} updates are made."
