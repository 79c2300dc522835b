"""Whether a run is new or resumed: a run folder is never overwritten, and resumed only when asked for."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Literal

from hfwarmup.errors import UserError
from hfwarmup.run_folder.files import BEGUN

logger = logging.getLogger(__name__)

Resume = Literal["never", "auto", "must"]


def find_checkpoint(output_dir: str | Path, resume: Resume) -> str | None:
    """The checkpoint to resume from, None for a new run.

    Incomplete checkpoints, whose run was killed while it saved them, are ignored with a warning. Nothing is changed in
    the folder.

    Args:
        output_dir: the run's folder.
        resume: never: the folder must be empty. auto: the last checkpoint, or a new run when the folder holds nothing
            but incomplete checkpoints and the files that a run writes at its start. must: the last checkpoint.

    Raises:
        UserError: when the folder does not fit `resume`.
    """
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir={folder} is a file; name a folder.")
    files = [entry for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
    checkpoints = sorted((entry for entry in files if _is_checkpoint(entry)), key=_update)
    whole = [entry for entry in checkpoints if _is_whole(entry)]
    checkpoint = str(whole[-1]) if whole else None
    if resume == "must" and checkpoint is None:
        raise UserError(f"resume=must, and {folder} has no checkpoint; give the run's own output_dir, or resume=auto.")
    if resume == "never" and files:
        raise UserError(
            f"output_dir={folder} holds a run already; choose another output_dir, or go on from its last checkpoint "
            "with resume=auto."
        )
    if resume == "auto" and not checkpoints and any(entry.name not in BEGUN for entry in files):
        raise UserError(
            f"resume=auto, and {folder} holds files but no checkpoint to go on from; choose another output_dir, or "
            "empty it."
        )
    if checkpoints != whole:
        half_written = ", ".join(entry.name for entry in checkpoints if entry not in whole)
        logger.warning("ignoring %s: incomplete, the run was killed while saving it", half_written)
    return checkpoint


def _is_checkpoint(entry: Path) -> bool:
    return entry.is_dir() and re.fullmatch(r"checkpoint-\d+", entry.name) is not None


def _update(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path) -> bool:
    """Whether the checkpoint is complete: the Trainer writes its state last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
