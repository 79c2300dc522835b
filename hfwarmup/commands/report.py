"""`hfwarmup report`: what one or more runs did, as a page and a picture."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from hfwarmup.commands.shared import check_output
from hfwarmup.errors import UserError


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="run folders (output_dir); several are compared", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="the page, a name in .html; without it, report.html in the run's folder"),
    ] = None,
) -> None:
    """Write one self-contained HTML page, and a PNG: learning rate, losses, spikes, plan, command, environment.

    A run that still trains is shown up to now.
    """
    from hfwarmup.run_folder.data import read_runs

    check_output(output, [".html"])
    path = output or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    if find_spec("plotly") is None:
        raise UserError("report draws with Plotly, which is not installed; pip install 'plotly>=6.3' jinja2.")
    read = read_runs(runs)
    from hfwarmup.reporting.page import write_report

    picture = write_report(path, read)
    for run in read:
        for line in run.missing:
            typer.echo(f"{run.name}: {line}")
    typer.echo(f"report    {path}\npicture   {picture}")
