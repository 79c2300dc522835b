"""`hfwarmup init` gives one's own copy of a recipe, which runs where it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import folder_of_runs, run_two_updates
from typer.testing import CliRunner

from hfwarmup.cli import app
from hfwarmup.planning.recipe_files import config_folder, find_recipe, find_script, recipe_names
from hfwarmup.run_folder.files import read_learning_rates


def run(*words):
    return CliRunner().invoke(app, ["init", *map(str, words)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_the_copies_are_the_recipes_and_what_to_type_is_said(folder):
    result = run("train_timeseries", "mine")
    own = {f"configs/train_timeseries/{path.name}" for path in config_folder("train_timeseries").glob("*.yaml")}
    accelerate = {name for name in listing(folder / "mine") if name.startswith("configs/accelerate/")}
    assert listing(folder / "mine") == {"train_timeseries.py"} | own | accelerate
    assert "configs/accelerate/multi_gpu.yaml" in accelerate
    assert Path("mine/train_timeseries.py").read_bytes() == find_recipe("train_timeseries").read_bytes()
    said = result.output.splitlines()
    assert {line.removeprefix("mine/") for line in said if line.startswith("mine/")} == listing(folder / "mine")
    assert said[-4:-1] == [
        "cd mine",
        "hfwarmup plan configs/train_timeseries/smoke.yaml",
        "python train_timeseries.py --config configs/train_timeseries/smoke.yaml",
    ]
    assert said[-1].startswith("accelerate launch --config_file configs/accelerate/multi_gpu.yaml --num_processes 8 ")


def test_nothing_is_overwritten_and_a_second_recipe_joins(folder):
    run("pretrain_clm")
    Path("pretrain_clm.py").write_text("mine")
    again = run("pretrain_clm")
    assert again.exception.code == "error: pretrain_clm.py: already exists with different content; nothing was copied."
    assert Path("pretrain_clm.py").read_text() == "mine"
    assert run("pretrain_mlm").exit_code == 0
    assert {"pretrain_clm.py", "pretrain_mlm.py"} <= listing(folder)


def test_an_unknown_recipe_is_one_line(folder):
    assert run("pretrain").exception.code.startswith("error: recipe='pretrain'; did you mean 'pretrain_")
    assert listing(folder) == set()


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_copy_runs_where_it_is(recipe, tmp_path, own_process_state):
    with folder_of_runs(tmp_path):
        run(recipe)
        config = Path("configs", recipe, "smoke.yaml")
        assert find_script(config) == tmp_path / f"{recipe}.py"
        run_two_updates(tmp_path / f"{recipe}.py", config, warmup=1)
        left = Path("runs", recipe, "smoke")
        assert f"# recipe: {recipe}" in (left / "config.yaml").read_text()
        assert len(read_learning_rates(left / "learning_rates.csv")) == 2
        assert (left / "README.md").exists()
