"""`hfwarmup diagnose`: whether a run's warmup was long enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def diagnose(
    runs: Annotated[list[Path], typer.Argument(help="run folders, also of a run under way", show_default=False)],
) -> None:
    """What happened in a run's warmup, with the evidence, and the warmup and peak to try next.

    The diagnosis is also kept in the run's folder, as diagnosis.json, where the report finds it.
    """
    from hfwarmup.measuring.verdict import diagnose as judge
    from hfwarmup.training.run_files import DIAGNOSIS, LOG, RUN, read_log, write_atomically

    for run in runs:
        for name in (RUN, LOG):
            if not (run / name).exists():
                raise ValueError(f"{run}: no {name} here; name the output_dir of a recipe's run.")
        about = json.loads((run / RUN).read_text(encoding="utf-8"))
        diagnosis = judge(
            read_log(run / LOG),
            total_steps=about["max_steps"],
            warmup_steps=about["warmup_steps"],
            peak_lr=about["peak_lr"],
        )
        write_atomically(run / DIAGNOSIS, diagnosis.to_json())
        typer.echo(f"{run}: {diagnosis}")
