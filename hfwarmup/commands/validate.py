"""`hfwarmup validate`: every mistake in configs, before a run finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hfwarmup.commands.shared import PROCESSES, NumSamples, pick_settings, script_for
from hfwarmup.errors import UserError
from hfwarmup.planning.arguments import ModelArguments
from hfwarmup.planning.config import load_config
from hfwarmup.planning.recipe_files import find_recipe, import_script
from hfwarmup.planning.settings import PlanSettings


def validate(
    configs: Annotated[list[Path], typer.Argument(help="one or more YAML files", show_default=False)],
    recipe: Annotated[
        str, typer.Option(help="a recipe's name or your script, if the config is not in configs/<recipe>/")
    ] = "",
    num_processes: Annotated[int, typer.Option(*PROCESSES, help="over all machines, for the plan")] = 1,
    num_samples: NumSamples = None,
) -> None:
    """List every mistake in configs, each with file, line and remedy; the status is 1 if there is one.

    The recipe's own arguments are checked, so this loads torch and transformers.
    """
    from rich.console import Console

    wrong = False
    for config in configs:
        try:
            script = _script(config, recipe)
            with Console(stderr=True).status(f"{config}: reading it as {script.name} does"):
                settings = pick_settings(read_as(script, config), script)
            warnings = _plan_warnings(config, settings, num_processes, num_samples)
        except UserError as error:
            wrong = True
            typer.echo(error.report())
        else:
            typer.echo("\n".join([f"{config}: no mistakes, for {script.stem}", *warnings]))
    if wrong:
        raise typer.Exit(1)


def read_as(script: Path, config: Path) -> dict[str, Any]:
    """Every setting of a config and the recipe's defaults, as `script` reads them.

    Raises UserError with all findings, or with what a new model cannot be built with.
    """
    from hfwarmup.recipe.arguments import RecipeArguments
    from hfwarmup.recipe.parsing import read_arguments

    types = getattr(import_script(script), "ARGUMENTS", None)
    if types is None:
        raise UserError(f"{script} has no ARGUMENTS; define ARGUMENTS, the classes that it gives to parse_arguments.")
    read = read_arguments(types, ["--config", str(config)])
    settings = [setting for item in read if isinstance(item, RecipeArguments) for setting in item.settings]
    values = {setting.name: setting.value for setting in settings}
    for model in (item for item in read if isinstance(item, ModelArguments)):
        if not model.model and (model.model_type or model.config_overrides):  # else a flag of the launch names it
            _check_new_model(config, model, block_size=values.get("block_size", 512))
    return values


def _check_new_model(config: Path, model: ModelArguments, *, block_size: int) -> None:
    """Raise UserError, with the line, where no config of a new `model` can be made.

    The run's tokenizer may not exist yet, so a tokenizer of one token takes its place.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    from hfwarmup.recipe.model import new_config

    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({end: 0})), bos_token=end, eos_token=end)
    try:
        new_config(model, tokenizer, block_size)
    except ValueError as error:
        setting = "model_type" if str(error).startswith("model_type=") else "config_overrides"
        raise UserError(f"{config}:{load_config(config).line(setting)}: {error}") from None


def _script(config: Path, recipe: str) -> Path:
    """The script that a config is for, or the one that --recipe names."""
    if not load_config(config).values:
        raise UserError(f"{config}: the file is empty; write settings, one `name: value` a line.")
    if not recipe:
        return script_for(config, "put it into configs/NAME/, or give --recipe NAME")
    script = Path(recipe) if recipe.endswith(".py") else find_recipe(recipe)
    if not script.is_file():
        raise UserError(f"recipe={recipe}: this script does not exist; give a recipe's name, or a script's path.")
    return script


def _plan_warnings(config: Path, settings: PlanSettings, num_processes: int, num_samples: int | None) -> list[str]:
    if num_samples is None and settings.needs_num_samples:
        return ["not planned: the run's length depends on the data; give --num_samples to see the plan's warnings"]
    plan = settings.plan(num_processes=num_processes, num_samples=num_samples)
    return [f"warning: {config}: {warning}" for warning in plan.warnings]
