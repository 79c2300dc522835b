"""What the commands share: how they read settings, and how an error ends them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from hfwarmup.errors import UserError, unknown_choice
from hfwarmup.planning.arguments import DataArguments, ModelArguments
from hfwarmup.planning.config import load_config
from hfwarmup.planning.parsed_input import ParsedInput
from hfwarmup.planning.ranges import range_mistakes
from hfwarmup.planning.recipe_files import facts_of, find_script
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.planning.values import defaults_of, hints_of

WITH_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that takes every setting as --key value."""
PROCESSES = ("--num_processes", "--num-processes")
PLAN_ARGUMENTS = (PlanSettings, ModelArguments, DataArguments)
"""Where the settings are defined that `plan` and `plot` read."""
USUAL_OPTIMIZERS = ("adamw_torch_fused", "adamw_torch", "sgd", "adafactor", "gi_adamw", "radam", "schedule_free_adamw")
"""Names of optimizers that need not be looked up."""
ConfigArgument = Annotated[Path, typer.Argument(help="a recipe's YAML file", show_default=False)]
NumSamples = Annotated[
    int | None, typer.Option("--num_samples", "--num-samples", help="size of the training set, for runs in epochs")
]


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A command that prints one line for each mistake in its input, and ends with status 1.

    A mistake is a UserError, or an OSError that names a file.
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            sys.exit(error.report())
        except OSError as error:
            if error.filename is None:
                raise
            sys.exit(f"error: {error.filename}: {error.strerror}.")

    return run


def check_output(output: Path | None, suffixes: Sequence[str]) -> None:
    """Raise UserError, before any work, where an output file has a wrong suffix or its folder is missing."""
    if output is None:
        return
    if output.suffix not in suffixes:
        names = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
        raise UserError(f"output={output}: choose a name that ends in {names}.")
    if not output.parent.is_dir():
        raise UserError(f"output={output}: the folder {output.parent} does not exist; make it, or choose another.")


def script_for(config: Path, remedy: str = "or put it into configs/NAME/") -> Path:
    """The script of the recipe that a config is for.

    Raises UserError for a file that is no config, and for one whose recipe cannot be told; `remedy` ends that message.
    """
    load_config(config)
    script = find_script(config)
    if script is None:
        raise UserError(
            f"{config}: cannot tell which recipe this config is for; begin it with the line `# recipe: NAME`, {remedy}."
        )
    return script


def plan_settings(config: Path, words: Sequence[str] = ()) -> PlanSettings:
    """The settings that decide the plan: those of a config, and of `words`, --key value pairs that win over it.

    Other settings are the recipe's own matter. Raises UserError with every mistake.
    """
    script = find_script(config)
    tokens = _tokens_setting(script)
    hints = {**({tokens: int} if tokens else {}), **hints_of(*PLAN_ARGUMENTS)}
    given = ParsedInput([*words, "--config", str(config)], hints, strict=False)
    given.add_mistakes(range_mistakes(given.values))
    if given.findings:  # block_size would be wrong again as tokens_per_sample
        raise UserError(*given.findings)
    defaults = {} if script is None else defaults_of(ModelArguments, DataArguments)
    settings = pick_settings({**defaults, **given.values}, script)
    given.add_mistakes([*settings.mistakes(), *_optimizer_mistakes(settings.optim)])
    if given.findings:
        raise UserError(*given.findings)
    return settings


def _optimizer_mistakes(name: str) -> list[tuple[str, str]]:
    """Look up an unusual optimizer in transformers, which takes seconds to load."""
    if name in USUAL_OPTIMIZERS:
        return []
    from hfwarmup.trainer.compat import optimizer_names
    from hfwarmup.trainer.registration import register

    register()
    names = optimizer_names()
    return [] if name in names else [("optim", unknown_choice("optim", name, names))]


def pick_settings(settings: Mapping[str, Any], script: Path | None) -> PlanSettings:
    """The settings that decide the plan of a recipe."""
    return PlanSettings.pick({**settings, "tokens_per_sample": settings.get(_tokens_setting(script))})


def _tokens_setting(script: Path | None) -> str:
    """The setting that says how many tokens a sample has; empty where none does. Without a script it is block_size."""
    return "block_size" if script is None else facts_of(script).tokens_per_sample or ""
