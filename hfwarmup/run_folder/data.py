"""A run folder read as plain data. A run that still trains is read as far as it has come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfwarmup.errors import UserError
from hfwarmup.run_folder.files import LEARNING_RATES, LOG, RUN, read_learning_rates, read_log
from hfwarmup.schedules.spec import ScheduleSpec

RESULTS, TRAINER_STATE = "all_results.json", "trainer_state.json"

Points = list[tuple[int, float]]
"""(update, value), in the order of the run."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """One run, as its folder records it."""

    name: str
    """the folder's name"""
    manifest: dict[str, Any]
    """`run.json`: commands, plan, versions, device; empty when the file is missing"""
    spec: ScheduleSpec | None
    """the schedule; None when it is not one of this package"""
    rates: tuple[tuple[int, float, float], ...]
    """(0-based update, planned, applied), as far as recorded"""
    log: tuple[dict[str, Any], ...]
    """the Trainer's log entries, each with its `step`"""
    results: dict[str, Any]
    """`all_results.json`: the metrics of a finished run"""
    missing: tuple[str, ...]
    """one line for each thing that is missing, or not there yet"""

    @property
    def updates(self) -> int:
        """Updates made."""
        return max([entry["step"] for entry in self.log] + [row[0] + 1 for row in self.rates[-1:]], default=0)

    @property
    def total_steps(self) -> int:
        """Updates of the whole run; the updates made so far when its length is unknown."""
        return self.manifest.get("max_steps") or self.updates

    @property
    def warmup_steps(self) -> int:
        """Updates to the peak; 0 where the schedule is not known."""
        return 0 if self.spec is None else self.spec.warmup_steps

    def series(self, key: str) -> Points:
        """The values of one key of the log. For an update that was logged twice, the last value counts."""
        values = {entry["step"]: float(entry[key]) for entry in self.log if isinstance(entry.get(key), int | float)}
        return list(values.items())

    def logged_keys(self) -> list[str]:
        """The keys of the log, in the order in which they first appear."""
        return list(dict.fromkeys(key for entry in self.log for key in entry))


def read_run(folder: Path) -> RunData:
    """Read the folder of a recipe's run, of a run with a RunRecorder, or as far as possible of any Trainer's run.

    Raises UserError when the folder holds no run.
    """
    manifest, results = (_read_object(folder / name) for name in (RUN, RESULTS))
    log = _read_log(folder)
    if not manifest and not log:
        raise UserError(
            f"{folder} holds no run: neither {RUN} nor {LOG} nor {TRAINER_STATE} is there; give a run's output_dir."
        )
    record = folder / LEARNING_RATES
    rates = read_learning_rates(record) if record.exists() else []
    logged = [(entry["step"] - 1, float(entry["learning_rate"])) for entry in log if "learning_rate" in entry]
    rates += [(update, rate, rate) for update, rate in logged if update >= len(rates)]
    run = RunData(
        name=folder.resolve().name,
        manifest=manifest,
        spec=_read_spec(manifest.get("schedule")),
        rates=tuple(rates),
        log=tuple(log),
        results=results,
        missing=(),
    )
    return replace(run, missing=tuple(_missing(run, folder)))


def read_runs(folders: Sequence[Path]) -> list[RunData]:
    """Read several run folders. Runs of the same name are called by their paths instead."""
    runs = [read_run(folder) for folder in folders]
    names = unique_names([run.name for run in runs], folders)
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def unique_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """The names of what lies at `paths`; a name that occurs twice is replaced by the path.

    >>> unique_names(["smoke", "smoke", "long"], [Path("a/smoke.yaml"), Path("b/smoke.yaml"), Path("b/long.yaml")])
    ['a/smoke.yaml', 'b/smoke.yaml', 'long']
    """
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def planned_rates(run: RunData) -> Points:
    """The planned learning rate of each update: first the recorded ones, then those that the schedule will give.

    A plateau schedule ends at the recorded ones, since its future depends on evaluations to come.
    """
    recorded = [(update, planned) for update, planned, _ in run.rates]
    if run.spec is None or run.spec.resolved.decay == "plateau":
        return recorded
    first = recorded[-1][0] + 1 if recorded else 0
    whole = len(recorded) == first  # a log may hold only every tenth update
    begin = first if whole else 0
    return (recorded if whole else []) + [
        (update, run.spec.learning_rates(update)[0]) for update in range(begin, run.total_steps)
    ]


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty when there is no file; UserError with the path for anything else."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); repair it or move it away.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} does not hold a JSON object; repair it or move it away.")
    return found


def _read_log(folder: Path) -> list[dict[str, Any]]:
    """The run's log, or else the log history that every Trainer keeps in the folder or in its last checkpoint."""
    if (folder / LOG).exists():
        return read_log(folder / LOG)
    checkpoints = sorted(folder.glob(f"checkpoint-*/{TRAINER_STATE}"), key=lambda path: path.stat().st_mtime)
    for path in [folder / TRAINER_STATE, *reversed(checkpoints)]:
        if path.exists():
            return _read_object(path).get("log_history", [])
    return []


def _read_spec(schedule: dict[str, Any] | None) -> ScheduleSpec | None:
    """The schedule; None for a user's own, since its code is in no file."""
    if not schedule:
        return None
    spec = ScheduleSpec(**schedule)
    try:
        spec.learning_rates(0)
    except ValueError:
        return None
    return spec


def _missing(run: RunData, folder: Path) -> Iterable[str]:
    if not run.manifest:
        yield f"no {RUN}: plan, schedule, command and environment are unknown (a RunRecorder writes the file)."
    elif run.spec is None:
        yield f"the schedule {run.manifest['scheduler']} is not one of hfwarmup's, so its warmup is not drawn."
    if not (folder / LEARNING_RATES).exists():
        yield f"no {LEARNING_RATES} yet: the learning rates come from the log."
    if not run.results:
        yield f"no {RESULTS} yet: {run.updates} of {run.total_steps} updates done."
