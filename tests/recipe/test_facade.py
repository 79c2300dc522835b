"""A recipe imports one name, hfwarmup.recipe, and that shows these names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hfwarmup.recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.py"))
NAMES = [
    # settings
    "DataArguments", "ModelArguments", "RecipeArguments", "WarmupArguments", "parse_arguments",
    "Range", "UserError",
    # data: text, tables, Python sources, engines
    "prepare_data", "PreparedData", "IGNORED_LABEL", "load_corpus", "build_tokenizer", "load_labelled",
    "split_and_encode", "documented", "documented_functions", "find_pairs", "find_rows", "drop_repeated",
    "check_not_empty", "split_words", "Engine", "Windows", "NUM_FEATURES", "find_cmapss", "read_cmapss",
    "simulate_fleet",
    # model and metrics
    "build_model", "explained", "load_metric", "compute_metrics", "compute_metrics_with", "describe_language_model",
    "unigram_loss", "next_token_targets",
    # the run
    "Run", "run_recipe", "stretch_warmup", "without_dataset_bars",
    # a loop without a Trainer
    "Loop", "check_followed", "plan_of",
]  # fmt: skip


def test_the_names_are_these():
    assert sorted(hfwarmup.recipe.__all__) == sorted(NAMES) == sorted(dir(hfwarmup.recipe))


@pytest.mark.parametrize("name", NAMES)
def test_each_is_there_and_documented(name):
    thing = getattr(hfwarmup.recipe, name)
    assert isinstance(thing, int) or thing.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'hfwarmup.recipe' has no attribute 'Runn'$"):
        hfwarmup.recipe.Runn  # noqa: B018


def test_the_list_alone_loads_nothing():
    program = "import sys, hfwarmup.recipe; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {"torch", "transformers", "datasets", "numpy"} == set()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_imports_nothing_deeper(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {name for name in names if name.partition(".")[0] == "hfwarmup"} <= {"hfwarmup", "hfwarmup.recipe"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read_in_five_minutes(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (70 if path.stem == "pretrain_clm" else 200)
