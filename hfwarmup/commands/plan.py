"""`hfwarmup plan`: what a config would train."""

from __future__ import annotations

from typing import Annotated

import typer

from hfwarmup.commands.shared import PROCESSES, ConfigArgument, NumSamples, plan_settings
from hfwarmup.planning.plan import Plan
from hfwarmup.schedules.spec import ScheduleSpec


def plan(
    context: typer.Context,
    config: ConfigArgument,
    num_processes: Annotated[
        str, typer.Option(*PROCESSES, help="over all machines; several side by side: 1,8,64")
    ] = "1",
    num_samples: NumSamples = None,
    json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """What a config would train: batch, peak learning rate, warmup and length, each with its reason.

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
        typer.echo(_learning_rates(settings.spec(plans[0])))
    else:
        _print_table(counts, plans, [settings.spec(each) for each in plans])
    if settings.starts_at_critical_lr and not json:
        typer.echo(
            "initial_lr auto: the start is measured when the run begins; a critical learning rate eta_c shortens the "
            "warmup to warmup_steps (1 - eta_c / peak). Shown is the whole warmup; see hfwarmup find-lr."
        )


def _count(word: str) -> int:
    if not word.strip().isdigit() or int(word) < 1:
        raise ValueError(f"num_processes={word!r}: give whole numbers, 1 or more, such as 1,8,64.")
    return int(word)


def _learning_rates(spec: ScheduleSpec) -> str:
    updates = [0, spec.num_warmup_steps, (spec.total_steps or 1) - 1]
    rates = ", ".join(f"{spec.learning_rates(update)[0]:g} at update {update}" for update in dict.fromkeys(updates))
    return f"{spec.name}: learning rate {rates}"


def _print_table(counts: list[int], plans: list[Plan], specs: list[ScheduleSpec]) -> None:
    from rich.console import Console
    from rich.table import Table

    rows: dict[str, list[str]] = {
        "global batch": [f"{each.global_batch_size:,}" for each in plans],
        "k": [f"{each.scale:g}" for each in plans],
        "peak learning rate": [f"{each.peak_lr:g}" for each in plans],
        "warmup steps": [f"{each.warmup_steps:,}" for each in plans],
        "warmup samples": [f"{each.warmup_samples:,}" for each in plans],
        "warmup share": [f"{each.warmup_fraction:.1%}" for each in plans],
        "total steps": [f"{each.total_steps:,}" for each in plans],
        "first learning rate": [f"{spec.learning_rates(0)[0]:g}" for spec in specs],
        "last learning rate": [f"{spec.learning_rates((spec.total_steps or 1) - 1)[0]:g}" for spec in specs],
    }
    table = Table("processes", *map(str, counts), box=None)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    Console().print(table)
    for count, each in zip(counts, plans, strict=True):
        for warning in each.warnings:
            typer.echo(f"warning, {count} processes: {warning}")
