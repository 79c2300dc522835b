"""What validates runs, and what cannot run does not validate: every field of every recipe with each kind of value."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfwarmup.commands.shared import plan_settings
from hfwarmup.errors import UserError
from hfwarmup.planning.recipe_files import find_recipe, import_script, recipe_names
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.planning.values import hints_of
from hfwarmup.recipe.parsing import read_arguments

KINDS = {
    # kind -> the value as YAML
    "null": "null",
    "bool": "true",
    "int": "7",
    "float": "0.5",
    "text": "word",
    "number in quotes": '"40"',
    "list": "[word]",
    "map": "{a: 1}",
    "date": "2026-01-02",
    "huge": "1" + "0" * 400,
    "not a number": ".nan",
    "negative": "-1",
}
BASE = {"output_dir": "run", "use_cpu": "true", "max_steps": "2", "precision": "fp32"}
SHARED = "pretrain_clm"
"""The recipe whose fields the others have too; of them only their own are tried again."""


def types_of(recipe: str) -> tuple[type, ...]:
    return import_script(find_recipe(recipe)).ARGUMENTS


def fields_of(recipe: str) -> list[str]:
    """The fields of a recipe that are its own, by name or by type."""
    hints, shared = hints_of(*types_of(recipe)), hints_of(*types_of(SHARED))
    return [name for name, hint in hints.items() if recipe == SHARED or shared.get(name) != hint]


def verdict(call) -> str:
    """Empty where a call passes, else the one line that it ends with; another exception is a failure of the test."""
    findings: tuple[str, ...] = ("",)
    try:
        call()
    except UserError as error:
        findings = error.findings
    (finding,) = findings
    assert "\n" not in finding
    return finding


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Writes a config with one more setting."""
    monkeypatch.chdir(tmp_path)

    def write(recipe: str, name: str, value: str) -> Path:
        path = Path("configs", recipe, "run.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {**BASE, name: value}
        path.write_text("".join(f"{key}: {text}\n" for key, text in settings.items()))
        return path

    return write


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recipe", recipe_names())
def test_validate_and_plan_agree_on_every_field(recipe, kind, config):
    """A plan judges the settings that decide it, as validate does; what it refuses, validate refuses."""
    types, of_the_plan = types_of(recipe), hints_of(PlanSettings).keys()
    disagreements = []
    for name in fields_of(recipe):
        path = config(recipe, name, KINDS[kind])
        found = verdict(lambda path=path: read_arguments(types, ["--config", str(path)]))
        assert not found or found.startswith(f"{path}:")
        planned = verdict(lambda path=path: plan_settings(path))
        if bool(planned) != bool(found) and (planned or name in of_the_plan):
            disagreements.append((name, found, planned))
    assert disagreements == []
