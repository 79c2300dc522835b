"""The files that record a run: their names, and how they are written and read."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfwarmup.errors import UserError

RUN = "run.json"
"""How the run was started: commands, plan, schedule, versions, device."""
LOG = "log.jsonl"
"""One line for each log entry, in the order of the run."""
LEARNING_RATES = "learning_rates.csv"
"""The learning rate of each update, planned and applied."""
CONFIG = "config.yaml"
"""Every setting as given, before the plan changes any, with its origin."""
BEGUN = (RUN, LOG, CONFIG)
"""What a run writes at its start: none of it is enough to resume from."""


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file at once: a reader finds the old text or the new text, never a part."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def write_learning_rates(path: Path, rows: Iterable[tuple[int, float, float]]) -> None:
    """Write (0-based update, planned, applied) as CSV, with every digit of each learning rate."""
    text = io.StringIO()
    csv.writer(text).writerows([("update", "planned", "applied"), *rows])
    write_atomically(path, text.getvalue())


def read_learning_rates(path: Path) -> list[tuple[int, float, float]]:
    """The rows of a `learning_rates.csv`: (0-based update, planned, applied)."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            (int(update), float(planned), float(applied)) for update, planned, applied in list(csv.reader(file))[1:]
        ]


def log_line(entry: Mapping[str, Any]) -> str:
    """A log entry as a line of `log.jsonl`; numbers of torch and numpy become plain ones.

    >>> log_line({"loss": 2.5, "step": 10})
    '{"loss": 2.5, "step": 10}\\n'
    """
    return json.dumps(entry, default=_plain) + "\n"


def append_log(path: Path, entry: Mapping[str, Any]) -> None:
    """Append an entry to a `log.jsonl`; it is in the file when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(log_line(entry))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a `log.jsonl`. A last line that is still being written is left out.

    Raises UserError, with file and line, when any other line is not JSON.
    """
    *lines, _unfinished = path.read_text(encoding="utf-8").split("\n")
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except ValueError:
            raise UserError(f"{path}:{number}: {line[:60]!r} is not JSON; remove the line.") from None
    return entries


def command_history(earlier: Sequence[Mapping[str, Any]], update: int, command: str) -> list[dict[str, Any]]:
    """The commands that made a run, each with the update at which it began; without those that were undone.

    >>> earlier = [{"from_update": 0, "command": "train"}, {"from_update": 8, "command": "old"}]
    >>> command_history(earlier, 4, "train --resume auto")
    [{'from_update': 0, 'command': 'train'}, {'from_update': 4, 'command': 'train --resume auto'}]
    """
    kept = [dict(entry) for entry in earlier if entry["from_update"] < update]
    return [*kept, {"from_update": update, "command": command}]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
