"""What a recipe imports: arguments, data, models, metrics, and the run that ties them together.

Each name is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "errors": ["Range", "UserError"],
    "optim.groups": ["stretch_warmup"],
    "planning.arguments": ["DataArguments", "ModelArguments", "WarmupArguments"],
    "recipe.arguments": ["RecipeArguments"],
    "recipe.baselines": ["describe_language_model", "next_token_targets", "unigram_loss"],
    "recipe.console": ["run_recipe", "without_dataset_bars"],
    "recipe.corpus": ["load_corpus"],
    "recipe.data": ["IGNORED_LABEL", "PreparedData", "build_tokenizer", "prepare_data"],
    "recipe.engines": ["NUM_FEATURES", "Engine", "Windows", "find_cmapss", "read_cmapss", "simulate_fleet"],
    "recipe.labelled": ["load_labelled", "split_and_encode"],
    "recipe.loop": ["Loop", "check_followed"],
    "recipe.metrics": ["compute_metrics", "compute_metrics_with", "load_metric"],
    "recipe.model": ["build_model", "explained"],
    "recipe.parsing": ["parse_arguments"],
    "recipe.python_source": [
        "check_not_empty",
        "documented",
        "documented_functions",
        "drop_repeated",
        "find_pairs",
        "find_rows",
        "split_words",
    ],
    "recipe.run": ["Run"],
    "trainer.planning": ["plan_of"],
}
_HOMES = {name: f"hfwarmup.{module}" for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfwarmup.recipe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
