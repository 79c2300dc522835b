"""`hfwarmup plot`: the curve of one or more configs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfwarmup.commands.shared import PROCESSES, NumSamples, check_output, plan_settings
from hfwarmup.errors import UserError
from hfwarmup.planning.transformers_schedules import TRANSFORMERS_SCHEDULES


def plot(
    context: typer.Context,
    configs: Annotated[list[Path], typer.Argument(help="one or more YAML files, in one picture", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="a .png, .svg or .csv; without it, text")
    ] = None,
    num_processes: Annotated[int, typer.Option(*PROCESSES, help="over all machines")] = 1,
    num_samples: NumSamples = None,
) -> None:
    """Draw the exact learning rate of every update of one or more configs."""
    check_output(output, [".png", ".svg", ".csv"])
    from hfwarmup.reporting.text import draw_text, write_csv
    from hfwarmup.run_folder.data import unique_names

    words = [*map(str, configs), *context.args]  # settings come after the configs, and typer cannot tell them apart
    first = next((index for index, word in enumerate(words) if word.startswith("--")), len(words))
    curves = {}
    paths = list(map(Path, words[:first]))
    for path, name in zip(paths, unique_names([path.stem for path in paths], paths), strict=True):
        settings = plan_settings(path, words[first:])
        plan = settings.plan(num_processes=num_processes, num_samples=num_samples)
        if plan.schedule in TRANSFORMERS_SCHEDULES:
            raise UserError(
                f"{path}: {plan.schedule} is a schedule of transformers and is not drawn; set lr_scheduler_type to a "
                "name of `hfwarmup list`, such as warmup_linear."
            )
        measured = " (initial_lr auto: at most)" if settings.starts_at_critical_lr else ""
        curves[f"{name}{measured}"] = settings.spec(plan)
    if output is None:
        typer.echo("\n\n".join(draw_text(name, spec) for name, spec in curves.items()))
    elif output.suffix == ".csv":
        write_csv(output, curves)
    else:
        from hfwarmup.reporting.curves import plot_curves

        plot_curves(output, curves)
