"""What the commands have in common: how they end with an error, and how they read settings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from hfwarmup.errors import UserError
from hfwarmup.planning.aliases import moved_to
from hfwarmup.planning.config import load_config, unknown_key
from hfwarmup.planning.recipe_files import Facts, facts_of, find_script
from hfwarmup.planning.settings import PlanSettings

WITH_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that takes every setting as --key value."""
PROCESSES = ("--num_processes", "--num-processes")
DEFAULTS = {"model": "", "block_size": 256}
"""What a recipe has where its config is silent and a PlanSettings knows nothing."""
ConfigArgument = Annotated[Path, typer.Argument(help="a recipe's YAML file", show_default=False)]
NumSamples = Annotated[
    int | None, typer.Option("--num_samples", "--num-samples", help="size of the training set, for runs in epochs")
]


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A command that ends with one line a finding and status 1 where something is wrong with what it was given.

    That is a ValueError, or an OSError on a file.
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:
            sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))
        except OSError as error:
            if error.filename is None:
                raise
            sys.exit(f"error: {error.filename}: {error.strerror}.")

    return run


def check_output(output: Path | None, suffixes: Sequence[str]) -> None:
    """Raise ValueError, before any work, where a file that is asked for has another suffix or no folder to be in."""
    if output is None:
        return
    if output.suffix not in suffixes:
        names = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
        raise UserError(f"output={output}: choose a name that ends in {names}.")
    if not output.parent.is_dir():
        raise UserError(f"output={output}: there is no folder {output.parent}; make it, or choose another.")


def script_for(config: Path, remedy: str = "or put it into configs/NAME/") -> Path:
    """The script of the recipe that a config is for.

    Raises UserError where it is no config, and, with another `remedy`, where its recipe cannot be told.
    """
    load_config(config)
    script = find_script(config)
    if script is None:
        raise UserError(f"{config}: for which recipe? Begin it with the line `# recipe: NAME`, {remedy}.")
    return script


def plan_settings(config: Path, words: Sequence[str] = ()) -> PlanSettings:
    """What decides the plan, from a config and then from `words`, --key value pairs that win over it.

    Raises UserError with every setting that is almost one of the plan's; what else a recipe has is left to it.
    """
    known = [item.name for item in fields(PlanSettings)]
    in_file, flags = load_config(config), _flags(words)
    findings = [*in_file.duplicates]
    findings += [(in_file.line(key), unknown_key(key, known, in_file.values[key])) for key in _missed(in_file.values)]
    texts = [f"{config}:{line}: {finding}" for line, finding in sorted(set(findings))]
    texts += [unknown_key(key, known, flags[key]) for key in _missed(flags)]
    if texts:
        raise UserError(*texts)
    script = find_script(config)
    defaults = {} if script is None else DEFAULTS
    return pick_settings({**defaults, **in_file.values, **flags}, script)


def pick_settings(settings: Mapping[str, Any], script: Path | None) -> PlanSettings:
    """What decides the plan of a recipe; without the recipe's script, samples are taken to be of block_size tokens."""
    facts = Facts(tokens_per_sample="block_size") if script is None else facts_of(script)
    tokens = settings.get(facts.tokens_per_sample or "")
    return PlanSettings.pick({**settings, "tokens_per_sample": tokens})


def _missed(settings: Mapping[str, Any]) -> list[str]:
    """The names that are a setting of the plan, but for a slip or an older name."""
    from difflib import get_close_matches

    names = [item.name for item in fields(PlanSettings)]
    known = [*names, "adam_beta1"]  # a setting of its own, though near adam_beta2
    return [
        key
        for key, value in settings.items()
        if key not in known and (get_close_matches(key, names, n=1, cutoff=0.9) or moved_to(key, value, names))
    ]


def _flags(words: Sequence[str]) -> Mapping[str, Any]:
    """`--key value` pairs; values are read as YAML, as in the file."""
    from ruamel.yaml import YAML

    pairs = [word.split("=", 1) if "=" in word else [word] for word in words]
    flat = [part for pair in pairs for part in pair]
    if len(flat) % 2 or any(not flag.startswith("--") for flag in flat[::2]):
        raise UserError(f"cannot read {' '.join(words)!r} as settings; write --key value.")
    return {
        flag[2:].replace("-", "_"): YAML(typ="safe", pure=True).load(value)
        for flag, value in zip(flat[::2], flat[1::2], strict=True)
    }
