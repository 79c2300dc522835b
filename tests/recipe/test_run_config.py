"""The config that a run leaves makes the run again."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

import hfwarmup
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.planning.config import load_config
from hfwarmup.planning.recipe_files import config_folder, find_recipe, find_script, import_script, recipe_names
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.recipe.run_config import keep_config
from hfwarmup.trainer.planning import plan_of, plan_training, planned_arguments

TYPES = (ModelArguments, DataArguments, WarmupArguments, RecipeArguments)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begins a run in `run`, as pretrain_clm does, and returns what it was told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pretrain_clm.py"])
    Path("run").mkdir()
    hfwarmup.register()

    def begin_run(*flags: str, update: int = 0):
        told = parse_arguments(*TYPES, argv=["--output_dir", "run", "--use_cpu", "true", *flags])
        plan = plan_training(told[-1], told[2], num_samples=640, tokens_per_sample=8)
        planned = planned_arguments(told[-1], told[2], plan)
        keep_config(planned, update=update)
        return *told, planned

    return begin_run


def values(told) -> list[dict]:
    """What a parser has read, before the plan: the fields of all arguments but what a run derives."""
    read = [dataclasses.asdict(item) for item in told]
    for fields in read:
        for derived in ("settings", "plan"):
            fields.pop(derived, None)
    return read


FLAGS = (
    "--learning_rate", "1e-3", "--warmup", "10%", "--reference_batch_size", "4", "--max_steps", "100",
    "--lr_scheduler_type", "warmup_wsd", "--lr_scheduler_kwargs", '{"cooldown_shape": "1-sqrt"}',
)  # fmt: skip


def test_the_file_has_each_value_before_the_plan_with_its_origin(begin):
    begin(*FLAGS)
    path = Path("run", "config.yaml")
    settings = load_config(path).values
    assert settings["learning_rate"] == 1e-3
    assert settings["lr_scheduler_kwargs"] == {"cooldown_shape": "1-sqrt"}
    lines = {line.partition(":")[0]: line.partition(" # ")[2] for line in path.read_text().splitlines()}
    assert lines["learning_rate"] == "flag; 0.002 by the plan"  # batch 8, tuned at 4
    assert lines["warmup"] == "flag; 20 steps by the plan"
    assert lines["seed"] == "default"
    assert find_script(path).stem == "pretrain_clm"


def test_the_file_again_is_the_same_run_and_the_same_plan(begin):
    first = begin(*FLAGS)
    again = parse_arguments(*TYPES, argv=["--config", "run/config.yaml"])
    plan = plan_training(again[-1], again[2], num_samples=640, tokens_per_sample=8)
    assert plan == plan_of(first[-1])
    assert (plan.peak_lr, plan.warmup_steps) == (2e-3, 20)  # scaled once
    assert values(again) == values(first[:-1])


def test_the_same_settings_leave_the_file_as_it_is(begin):
    begin(*FLAGS)
    before = Path("run", "config.yaml").read_text()
    begin("--config", "run/config.yaml", "--resume", "auto", update=40)
    assert Path("run", "config.yaml").read_text() == before
    assert [path.name for path in Path("run").iterdir()] == ["config.yaml"]


def test_other_settings_keep_the_earlier_file(begin, caplog):
    begin(*FLAGS)
    before = Path("run", "config.yaml").read_text()
    begin(*FLAGS, "--max_steps", "200", "--seed", "7", update=40)
    assert Path("run", "config-until-40.yaml").read_text() == before
    assert load_config(Path("run", "config.yaml")).values["max_steps"] == 200
    assert caplog.messages == [
        "settings changed at update 40: max_steps 100 -> 200, seed 42 -> 7; the earlier ones are in "
        "run/config-until-40.yaml"
    ]


def test_a_secret_is_not_kept(begin):
    begin(*FLAGS, "--hub_token", "hf_secret")
    assert "secret" not in Path("run", "config.yaml").read_text()


def test_arguments_of_nobodys_parsing_leave_nothing(tmp_path):
    keep_config(RecipeArguments(output_dir=str(tmp_path), use_cpu=True), update=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_told_the_same_by_what_it_leaves(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hfwarmup.register()
    types = import_script(find_recipe(name)).ARGUMENTS
    told = parse_arguments(*types, argv=["--config", str(config_folder(name) / "smoke.yaml"), "--use_cpu", "true"])
    told[-1].output_dir = str(tmp_path)
    keep_config(told[-1], update=0)
    again = parse_arguments(*types, argv=["--config", "config.yaml"])
    again[-1].output_dir = told[-1].output_dir
    assert values(again) == values(told)
