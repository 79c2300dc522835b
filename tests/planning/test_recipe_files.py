"""Recipes and configs are found by name, and a config's recipe by where the config lies or by what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hfwarmup.planning.recipe_files import config_folder, find_recipe, find_script, recipe_names, recipe_of, summary

ROOT = Path(__file__).resolve().parents[2]


def test_every_script_is_a_recipe_with_configs_and_a_line_about_it():
    assert recipe_names() == sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
    for name in recipe_names():
        assert (config_folder(name) / "smoke.yaml").is_file()
        assert summary(find_recipe(name)).endswith(".")


def test_an_unknown_recipe_is_one_line_with_the_nearest():
    for find in (find_recipe, config_folder):
        with pytest.raises(ValueError, match=r"^no recipe 'pretrain_clmm'; did you mean 'pretrain_clm'\? Choose"):
            find("pretrain_clmm")


def test_a_config_belongs_to_the_recipe_of_its_folder(monkeypatch):
    assert recipe_of(ROOT / "configs" / "train_seq2seq" / "smoke.yaml") == "train_seq2seq"
    monkeypatch.chdir(ROOT / "configs" / "pretrain_mlm")
    assert recipe_of(Path("smoke.yaml")) == "pretrain_mlm"
    assert recipe_of(ROOT / "configs" / "accelerate" / "cpu.yaml") is None


def test_a_runs_own_config_says_its_recipe(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("# recipe: pretrain_mlm\nseed: 0\n")
    assert recipe_of(config) == "pretrain_mlm"
    config.write_text("seed: 0\n# recipe: pretrain_mlm\n")
    assert recipe_of(config) is None


@pytest.mark.parametrize("place", ["mine.py", "recipes/mine.py"])
def test_a_script_of_ones_own_comes_first(place, tmp_path):
    for name in (re.sub("mine", stem, place) for stem in ("mine", "pretrain_clm")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    for stem in ("mine", "pretrain_clm"):
        config = tmp_path / "configs" / stem / "run.yaml"
        assert find_script(config) == tmp_path / place.replace("mine", stem)
        assert recipe_of(config) == stem
    assert find_script(tmp_path / "configs" / "train_seq2seq" / "run.yaml") == find_recipe("train_seq2seq")
