"""Recipes and configs are found by name, the recipe of a config by its place or first line, and facts by reading."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from hfwarmup.errors import UserError
from hfwarmup.planning.recipe_files import (
    Facts,
    config_folder,
    facts_of,
    find_recipe,
    find_script,
    import_script,
    recipe_names,
    recipes_with,
    summary,
)

ROOT = Path(__file__).resolve().parents[2]


def test_every_script_is_a_recipe_with_configs_and_a_line_about_it():
    assert recipe_names() == sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
    for name in recipe_names():
        assert (config_folder(name) / "smoke.yaml").is_file()
        assert summary(find_recipe(name)).endswith(".")


def test_an_unknown_recipe_is_one_line_with_the_nearest():
    for find in (find_recipe, config_folder):
        with pytest.raises(ValueError, match=r"^recipe='pretrain_clmm'; did you mean 'pretrain_clm'\? Choose"):
            find("pretrain_clmm")


def test_a_config_belongs_to_the_recipe_of_its_folder(monkeypatch):
    assert find_script(ROOT / "configs" / "train_seq2seq" / "smoke.yaml").stem == "train_seq2seq"
    monkeypatch.chdir(ROOT / "configs" / "pretrain_mlm")
    assert find_script(Path("smoke.yaml")).stem == "pretrain_mlm"
    assert find_script(ROOT / "configs" / "accelerate" / "cpu.yaml") is None


def test_a_runs_own_config_says_its_recipe(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("# recipe: pretrain_mlm\nseed: 0\n")
    assert find_script(config).stem == "pretrain_mlm"
    config.write_text("seed: 0\n# recipe: pretrain_mlm\n")
    assert find_script(config) is None


@pytest.mark.parametrize("place", ["mine.py", "recipes/mine.py"])
def test_a_script_of_ones_own_comes_first(place, tmp_path):
    for name in (re.sub("mine", stem, place) for stem in ("mine", "pretrain_clm")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    for stem in ("mine", "pretrain_clm"):
        config = tmp_path / "configs" / stem / "run.yaml"
        assert find_script(config) == tmp_path / place.replace("mine", stem)
        assert find_script(config).stem == stem
    assert find_script(tmp_path / "configs" / "train_seq2seq" / "run.yaml") == find_recipe("train_seq2seq")


# What a recipe says of itself

PACKED = {"pretrain_clm", "pretrain_mlm", "accelerate_loop"}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_declares_its_facts(name):
    tokens = "block_size" if name in PACKED else None
    assert facts_of(find_recipe(name)) == Facts(tokens_per_sample=tokens, trainer=name != "accelerate_loop")


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        ("", Facts()),
        ("# tokens_per_sample\n", Facts()),  # a comment declares nothing
        ("FACTS = {}\n", Facts()),
        ("FACTS = {'tokens_per_sample': 'length'}\n", Facts(tokens_per_sample="length")),
        ("FACTS: dict = {'trainer': False}\nimport no_such_package\n", Facts(trainer=False)),  # read, not run
        ("def main():\n    FACTS = {'trainer': False}\n", Facts()),
    ],
)
def test_the_facts_of_a_script(source, facts, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(source)
    assert facts_of(script) == facts
    assert facts_of(script).trainer == facts.trainer


LITERAL = "FACTS is no literal map; write for example FACTS = {'trainer': True}."


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("FACTS = {'token_per_sample': 'block_size'}", "FACTS has the unknown key 'token_per_sample'; did you mean "
                                                       "'tokens_per_sample'?"),
        ("FACTS = {1: 2}", "FACTS has the unknown key 1."),
        ("FACTS = {'trainer': 'no'}", "FACTS has trainer='no'; give True or False."),
        ("FACTS = {'tokens_per_sample': 256}",
         "FACTS has tokens_per_sample=256; give the name of a setting, or None."),
        ("FACTS = dict(trainer=True)", LITERAL),
        ("FACTS = [1]", LITERAL),
    ],
)  # fmt: skip
def test_a_wrong_fact_is_one_line(source, message, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(source)
    with pytest.raises(UserError, match=rf"\A{re.escape(f'mine.py: {message}')}\Z"):
        facts_of(script)


def test_a_script_that_is_not_python_is_one_line(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text("a = 1\nb = (\n")
    with pytest.raises(UserError, match=r"\A\S+mine\.py:2: is not valid Python \(.+\); correct the script\.\Z"):
        facts_of(script)


def test_a_setting_belongs_to_the_recipes_whose_arguments_have_it():
    assert set(recipes_with("block_size")) == set(recipe_names()) - {"train_timeseries"}
    assert recipes_with("lora_rank") == ["finetune_sft"]
    assert recipes_with("new_if_missing") == ["finetune_classification"]
    assert set(recipes_with("model_type")) == set(recipes_with("block_size"))  # of a base class too
    assert recipes_with("features") == []  # a field of no arguments
    assert recipes_with("no_such_setting") == []


@pytest.mark.parametrize(
    ("package", "remedy"), [("trl", "pip install 'hfwarmup[sft]'"), ("mechanics", "install mechanics")]
)
def test_a_package_that_is_missing_is_one_line(package, remedy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    script = tmp_path / "mine.py"
    script.write_text(f"from hfwarmup.recipe import Run\nfrom {package} import SFTTrainer\n")
    message = re.escape(f"mine.py needs {package}, which is not installed; {remedy}.")
    with pytest.raises(UserError, match=rf"\A{message}\Z"):
        import_script(script)
