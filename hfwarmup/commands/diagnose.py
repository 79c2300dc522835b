"""`hfwarmup diagnose`: whether a run's warmup was long enough."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfwarmup.errors import UserError


def diagnose(
    runs: Annotated[list[Path], typer.Argument(help="run folders, also of a run under way", show_default=False)],
) -> None:
    """What happened in a run's warmup, with the evidence, and the warmup and peak to try next.

    The report of the run shows the same.
    """
    from hfwarmup.reporting.diagnosis import diagnosis_of
    from hfwarmup.run_folder.data import read_run

    for run in runs:
        diagnosis = diagnosis_of(read_run(run))
        if diagnosis is None:
            raise UserError(
                f"{run}: no run.json with the peak and the warmup; add hfwarmup.RunRecorder() to the callbacks of the "
                "Trainer, as recipes do."
            )
        typer.echo(f"{run}: {diagnosis}")
