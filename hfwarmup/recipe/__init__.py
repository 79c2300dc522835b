"""What a recipe imports: its arguments, data, model, metrics, and the run that ties them together.

Each name is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "DataArguments": "hfwarmup.planning.arguments",
    "ModelArguments": "hfwarmup.planning.arguments",
    "RecipeArguments": "hfwarmup.recipe.arguments",
    "WarmupArguments": "hfwarmup.planning.arguments",
    "parse_arguments": "hfwarmup.recipe.parsing",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfwarmup.recipe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
