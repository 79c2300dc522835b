"""The run's folder: never overwritten, and resumed only when told to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from transformers.trainer_utils import get_last_checkpoint

Resume = Literal["never", "auto", "must"]


def find_checkpoint(output_dir: str | Path, resume: Resume) -> str | None:
    """The checkpoint to resume from, None for a new run.

    never: the folder must hold no run. auto: the last checkpoint if there is one, a new run in an empty folder. must:
    the last checkpoint.

    Raises ValueError when the folder and `resume` do not go together; nothing is touched.
    """
    folder = Path(output_dir)
    files = [entry for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
    checkpoint = get_last_checkpoint(str(folder)) if files else None
    if resume == "must" and checkpoint is None:
        raise ValueError(f"resume=must, and {folder} has no checkpoint; give the run's own output_dir, or resume=auto.")
    if resume == "never" and files:
        raise ValueError(
            f"output_dir={folder} holds a run already; choose another output_dir, or go on from its last checkpoint "
            "with resume=auto."
        )
    if resume == "auto" and files and checkpoint is None:
        raise ValueError(
            f"resume=auto, and {folder} holds files but no checkpoint to go on from; choose another output_dir, or "
            "empty it."
        )
    return checkpoint
