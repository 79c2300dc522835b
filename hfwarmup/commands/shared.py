"""What the commands have in common: how they end with an error, and how they read settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from hfwarmup.planning.config import read_config, unknown_key
from hfwarmup.planning.settings import PlanSettings

WITH_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that takes every setting as --key value."""
PROCESSES = ("--num_processes", "--num-processes")
ConfigArgument = Annotated[Path, typer.Argument(help="a recipe's YAML file", show_default=False)]
NumSamples = Annotated[
    int | None, typer.Option("--num_samples", "--num-samples", help="size of the training set, for runs in epochs")
]


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A command that ends with one line a finding and status 1 where something is wrong with what it was given."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:
            sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))

    return run


def plan_settings(config: Path, words: Sequence[str] = ()) -> PlanSettings:
    """What decides the plan, from a config and then from `words`, --key value pairs that win over it."""
    settings = {**read_config(config), **_flags(words)}
    names = [item.name for item in fields(PlanSettings)]
    # A recipe has more settings than the plan reads; those are left to it, but for the near misses.
    known = (*names, "adam_beta1")  # a setting of its own, though near adam_beta2
    missed = [key for key in settings if key not in known and get_close_matches(key, names, n=1, cutoff=0.9)]
    if missed:
        raise ValueError("\n".join(unknown_key(key, names) for key in missed))
    return PlanSettings.pick(settings)


def _flags(words: Sequence[str]) -> Mapping[str, Any]:
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
