"""What validates runs, and what cannot run does not validate: every field of every recipe with each kind of value."""

from __future__ import annotations

import json
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from small_runs import SMALL, TEXT, folder_of_runs

from hfwarmup.commands.shared import plan_settings
from hfwarmup.errors import UserError
from hfwarmup.planning.config import load_config
from hfwarmup.planning.recipe_files import config_folder, find_recipe, import_script, recipe_names
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
START = {"use_cpu": True, "max_steps": 2, "precision": "fp32", "disable_tqdm": True, "torch_compile": False}
START |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 32, "eval_steps": 2, "save_steps": 2}
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


NEEDS_A_NETWORK = {"push_to_hub"}
"""Settings that a Trainer can only follow with the hub."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with folder_of_runs(tmp_path_factory.mktemp("starts")) as folder:
        yield folder


def ending_of(recipe: str, config: Path) -> str:
    """How the recipe's script ends: empty after a training, else its one line, or the exception that it died of."""
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(sys, "argv", [f"{recipe}.py", "--config", str(config)])
            runpy.run_path(str(find_recipe(recipe)), run_name="__main__")
    except SystemExit as exit:
        return str(exit.code or "")
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recipe", recipe_names())
def test_what_validates_starts(recipe, kind, folder, monkeypatch, own_process_state):
    """Each value that validates is trained with for two updates; a name that leads nowhere ends in one line."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = {**load_config(config_folder(recipe) / "smoke.yaml").values, **SMALL.get(recipe, TEXT), **START}
    types, endings = types_of(recipe), {}
    for name in sorted(set(fields_of(recipe)) - NEEDS_A_NETWORK):
        config = folder / "configs" / recipe / f"{name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        settings = {key: json.dumps(value, default=str) for key, value in base.items()}
        settings |= {"output_dir": f"runs/{recipe}/{name}-{kind.replace(' ', '-')}", name: KINDS[kind]}
        config.write_text("".join(f"{key}: {text}\n" for key, text in settings.items()))
        try:
            read_arguments(types, ["--config", str(config)])
        except UserError:
            continue
        endings[name] = ending_of(recipe, config)
    assert {name: ending for name, ending in endings.items() if ending and not ending.startswith("error: ")} == {}
