"""The command line: look at a run before it starts. `plan` and `plot` need neither torch nor transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from hfwarmup.planning.config import read_config, unknown_key
from hfwarmup.planning.plan import Plan
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.schedules.spec import ScheduleSpec

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

_WITH_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
_PROCESSES = ("--num_processes", "--num-processes")
Config = Annotated[Path, typer.Argument(help="a recipe's YAML file", show_default=False)]
NumSamples = Annotated[
    int | None, typer.Option("--num_samples", "--num-samples", help="size of the training set, for runs in epochs")
]


def _one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What is wrong with a config ends the command with one line a finding and status 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:
            sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))

    return run


@app.command(context_settings=_WITH_SETTINGS)
@_one_line_errors
def plan(
    context: typer.Context,
    config: Config,
    num_processes: Annotated[
        str, typer.Option(*_PROCESSES, help="over all machines; several side by side: 1,8,64")
    ] = "1",
    num_samples: NumSamples = None,
    json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """What a config would train: batch, peak learning rate, warmup and length, each with its reason.

    Every setting can be given anew as --key value.
    """
    settings = _settings(config, context.args)
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


@app.command(context_settings=_WITH_SETTINGS)
@_one_line_errors
def plot(
    context: typer.Context,
    configs: Annotated[list[Path], typer.Argument(help="one or more YAML files, in one picture", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="a .png, .svg or .csv; without it, text")
    ] = None,
    num_processes: Annotated[int, typer.Option(*_PROCESSES, help="over all machines")] = 1,
    num_samples: NumSamples = None,
) -> None:
    """The exact learning rate of every update of one or more configs."""
    from hfwarmup.reporting.text import draw_text, write_csv

    words = [*map(str, configs), *context.args]  # settings come after the configs, and typer cannot tell them apart
    first = next((index for index, word in enumerate(words) if word.startswith("--")), len(words))
    curves = {}
    for path in map(Path, words[:first]):
        settings = _settings(path, words[first:])
        curves[path.stem] = settings.spec(settings.plan(num_processes=num_processes, num_samples=num_samples))
    if output is None:
        typer.echo("\n\n".join(draw_text(name, spec) for name, spec in curves.items()))
    elif output.suffix == ".csv":
        write_csv(output, curves)
    elif output.suffix in (".png", ".svg"):
        from hfwarmup.reporting.curves import plot_curves

        plot_curves(output, curves)
    else:
        raise ValueError(f"output={output}: choose a name that ends in .png, .svg or .csv.")


@app.command("list")
def list_schedules() -> None:
    """The schedules by name, with their formulas and sources."""
    from hfwarmup.schedules.named import SCHEDULES

    for name, named in SCHEDULES.items():
        typer.echo(f"{name:<20} {named.formula}\n{'':<20} {named.source}")


def _settings(config: Path, words: list[str]) -> PlanSettings:
    settings = {**read_config(config), **_flags(words)}
    names = [item.name for item in fields(PlanSettings)]
    # A recipe has more settings than the plan reads; those are left to it, but for the near misses.
    missed = [key for key in settings if key not in names and get_close_matches(key, names, n=1, cutoff=0.9)]
    if missed:
        raise ValueError("\n".join(unknown_key(key, names) for key in missed))
    return PlanSettings.pick(settings)


def _flags(words: list[str]) -> Mapping[str, Any]:
    """`--key value` pairs; values are read as YAML, as in the file."""
    from ruamel.yaml import YAML

    pairs = [word.split("=", 1) if "=" in word else [word] for word in words]
    flat = [part for pair in pairs for part in pair]
    if len(flat) % 2 or any(not flag.startswith("--") for flag in flat[::2]):
        raise ValueError(f"cannot read {' '.join(words)!r} as settings; write --key value.")
    return {
        flag[2:].replace("-", "_"): YAML(typ="safe").load(value)
        for flag, value in zip(flat[::2], flat[1::2], strict=True)
    }


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


if __name__ == "__main__":
    app()
