"""Where the recipes and their configs are, and what a recipe says of itself without being run.

They are beside the package in a checkout, and inside it when it is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from hfwarmup.errors import UserError, check_choice, did_you_mean
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = (_PACKAGE / "_recipes").is_dir()
RECIPES = _PACKAGE / "_recipes" if _INSTALLED else _PACKAGE.parent / "recipes"
CONFIGS = _PACKAGE / "_configs" if _INSTALLED else _PACKAGE.parent / "configs"

_HEADER = re.compile(r"# recipe: (\w+)")
_SHARED = {kind.__name__: kind for kind in (DataArguments, ModelArguments, WarmupArguments)}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a recipe declares about itself, in a literal `FACTS` at the level of its module."""

    tokens_per_sample: str | None = None
    """the setting that holds the number of tokens of each sample; None where samples differ, or have no tokens"""
    trainer: bool = True
    """whether a Trainer of transformers trains the model"""


def recipe_names() -> list[str]:
    """The names of the recipes, in alphabetical order.

    >>> "pretrain_clm" in recipe_names()
    True
    """
    return sorted(path.stem for path in RECIPES.glob("*.py"))


def find_recipe(name: str) -> Path:
    """The script of the recipe `name`. Raises UserError, with the nearest name, when there is none.

    >>> find_recipe("pretrain_clm").name
    'pretrain_clm.py'
    """
    check_choice("recipe", name, recipe_names())
    return RECIPES / f"{name}.py"


def config_folder(name: str) -> Path:
    """The folder with the configs of the recipe `name`. Raises UserError as `find_recipe` does.

    >>> (config_folder("pretrain_clm") / "smoke.yaml").is_file()
    True
    """
    return CONFIGS / find_recipe(name).stem


def find_script(config: Path) -> Path | None:
    """The script that a config is for, or None when neither its content nor its place tells.

    The config.yaml of a run names its recipe in the first line, `# recipe: mine`. Any other config lies in the folder
    of its recipe: for `X/configs/mine/run.yaml` the script is `X/mine.py`, else `X/recipes/mine.py`, else the recipe
    `mine` of the package.

    >>> find_script(config_folder("pretrain_clm") / "smoke.yaml").name
    'pretrain_clm.py'
    """
    folder = config.resolve().parent
    name = _named_in(config) or folder.name
    beside = folder.parent.parent
    candidates = (beside / f"{name}.py", beside / "recipes" / f"{name}.py", RECIPES / f"{name}.py")
    return next((path for path in candidates if path.is_file()), None)


def _named_in(config: Path) -> str | None:
    """The recipe that the first line of a run's own config names."""
    if not config.is_file():
        return None
    with config.open(encoding="utf-8", errors="replace") as file:
        header = _HEADER.match(file.readline())
    return header[1] if header else None


def import_script(script: Path) -> ModuleType:
    """Import a script as a module, without running its `main`. It may import what lies beside it.

    Raises UserError when the script needs a package that is not installed.
    """
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module  # its dataclasses look their types up there
    sys.path.insert(0, str(script.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        extra = "pip install 'hfwarmup[sft]'" if error.name in ("trl", "peft") else f"install {error.name}"
        raise UserError(f"{script.name} needs {error.name}, which is not installed; {extra}.") from None
    finally:
        sys.path.pop(0)
    return module


def summary(script: Path) -> str:
    """The first line of a script's docstring.

    >>> summary(find_recipe("pretrain_clm"))
    'Pretrain a small causal language model from scratch, with a named warmup schedule.'
    """
    return (ast.get_docstring(_parse(script)) or "").partition("\n")[0]


def facts_of(script: Path) -> Facts:
    """The facts that a script declares in `FACTS`. The script is read and not run.

    Raises UserError when `FACTS` is no literal map, has an unknown key, or a value of the wrong type.

    >>> facts_of(find_recipe("pretrain_clm"))
    Facts(tokens_per_sample='block_size', trainer=True)
    """
    value = _assigned(_parse(script), "FACTS")
    if value is None:
        return Facts()
    try:
        declared = ast.literal_eval(value)
    except ValueError:
        declared = None
    if not isinstance(declared, dict):
        raise UserError(f"{script.name}: FACTS is no literal map; write for example FACTS = {{'trainer': True}}.")
    for name, fact in declared.items():
        _check_fact(script, name, fact)
    return Facts(**declared)


def _check_fact(script: Path, name: Any, fact: Any) -> None:
    types = {"tokens_per_sample": (str, type(None)), "trainer": (bool,)}
    if name not in types:
        raise UserError(f"{script.name}: FACTS has the unknown key {name!r}{did_you_mean(name, types)}")
    if not isinstance(fact, types[name]):
        wanted = "the name of a setting, or None" if name == "tokens_per_sample" else "True or False"
        raise UserError(f"{script.name}: FACTS has {name}={fact!r}; give {wanted}.")


def recipes_with(setting: str) -> list[str]:
    """The recipes that take a setting of this name, through their own arguments or those of this package.

    The fields of TrainingArguments do not count: every recipe has them.

    >>> recipes_with("window_cycles"), recipes_with("mlm_probability")
    (['train_timeseries'], ['pretrain_mlm'])
    """
    return [name for name in recipe_names() if setting in _settings_of(find_recipe(name))]


def _settings_of(script: Path) -> set[str]:
    """The fields of the classes in a script's `ARGUMENTS`, and of their bases."""
    tree = _parse(script)
    own = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    value = _assigned(tree, "ARGUMENTS")
    settings: set[str] = set()
    for name in _with_bases([] if value is None else _names_in(value), own):
        if name in own:
            settings |= {
                item.target.id
                for item in own[name].body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
        elif name in _SHARED:
            settings |= {item.name for item in fields(_SHARED[name])}
    return settings


def _with_bases(names: list[str], own: dict[str, ast.ClassDef]) -> Iterator[str]:
    """The classes, and those that they inherit from."""
    for name in names:
        yield name
        for base in own[name].bases if name in own else ():
            yield from _with_bases(_names_in(base), own)


def _names_in(node: ast.expr) -> list[str]:
    return [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    """The expression that a module assigns to `name`, None when it assigns none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return node.value
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return node.value
    return None


def _parse(script: Path) -> ast.Module:
    try:
        return ast.parse(script.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"{script}:{error.lineno}: is not valid Python ({error.msg}); correct the script.") from None
