"""`hfwarmup plan`: what a config would train."""

from __future__ import annotations

from typing import Annotated

import typer

from hfwarmup.commands.shared import PROCESSES, ConfigArgument, NumSamples, plan_settings
from hfwarmup.errors import UserError
from hfwarmup.planning.plan import Plan


def plan(
    context: typer.Context,
    config: ConfigArgument,
    num_processes: Annotated[
        str, typer.Option(*PROCESSES, help="over all machines; several side by side: 1,8,64")
    ] = "1",
    num_samples: NumSamples = None,
    json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show what a config would train: batch, peak learning rate, warmup and length, each with its reason.

    Every setting can be given anew as --key value.
    """
    settings = plan_settings(config, context.args)
    counts = [_count(word) for word in num_processes.split(",")]
    plans = [settings.plan(num_processes=count, num_samples=num_samples) for count in counts]
    if json:
        texts = [each.to_json() for each in plans]
        typer.echo(texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]")
    elif len(plans) == 1:
        typer.echo(plans[0])
    else:
        _print_table(plans)


def _count(word: str) -> int:
    if not word.strip().isdecimal() or int(word) < 1:
        raise UserError(f"num_processes={word!r}: give whole numbers, 1 or more, such as 1,8,64.")
    return int(word)


def _print_table(plans: list[Plan]) -> None:
    """The plans side by side, then the warnings of each."""
    from rich.console import Console
    from rich.table import Table

    rows = {
        "global batch": [f"{each.global_batch_size:,}" for each in plans],
        "k": [f"{each.scale:g}" for each in plans],
        "peak learning rate": [f"{each.peak_lr:g}" for each in plans],
        "warmup steps": [f"{each.warmup_steps:,}" for each in plans],
        "warmup samples": [f"{each.warmup_samples:,}" for each in plans],
        "warmup tokens": ["" if each.warmup_tokens is None else f"{each.warmup_tokens:,}" for each in plans],
        "warmup share": [f"{each.warmup_fraction:.1%}" for each in plans],
        "total steps": [f"{each.total_steps:,}" for each in plans],
        "first learning rate": [_rate(each.first_lr) for each in plans],
        "last learning rate": [_rate(each.last_lr) for each in plans],
    }
    table = Table("processes", *(str(each.num_processes) for each in plans), box=None)
    for name, cells in rows.items():
        if any(cells):
            table.add_row(name, *cells)
    Console().print(table)
    for each in plans:
        for warning in each.warnings:
            typer.echo(f"warning, {each.num_processes} processes: {warning}")


def _rate(learning_rate: float | None) -> str:
    return "" if learning_rate is None else f"{learning_rate:g}"
