"""`hfwarmup list`: the recipes and the schedules."""

from __future__ import annotations

import shutil
import textwrap

import typer

from hfwarmup.planning.recipe_files import config_folder, find_recipe, recipe_names, summary
from hfwarmup.schedules.named import SCHEDULES

_INDENT = 26


def list_names() -> None:
    """The recipes with their configs, and the schedules with their formulas and sources."""
    typer.echo("Recipes, each a script to copy: hfwarmup init NAME\n")
    for name in recipe_names():
        configs = ", ".join(path.stem for path in sorted(config_folder(name).glob("*.yaml")))
        _print_entry(name, summary(find_recipe(name)), f"configs: {configs}")
    typer.echo(
        "\nSchedules, values of lr_scheduler_type: the learning rate of update t, with peak eta, warmup T_w, length T,"
        "\np = t / T_w and q = (t - T_w) / (T - T_w)\n"
    )
    for name, schedule in SCHEDULES.items():
        _print_entry(name, schedule.formula, schedule.source)


def _print_entry(name: str, *texts: str) -> None:
    width = max(60, shutil.get_terminal_size().columns)
    lines = [line for text in texts for line in textwrap.wrap(text, width - _INDENT)]
    typer.echo(f"  {name:<{_INDENT - 2}}" + f"\n{'':<{_INDENT}}".join(lines))
