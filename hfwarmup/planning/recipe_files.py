"""Where the recipes and their configs are: beside the package in a checkout, inside it when it is installed."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from hfwarmup.errors import UserError, did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = (_PACKAGE / "_recipes").is_dir()
RECIPES = _PACKAGE / "_recipes" if _INSTALLED else _PACKAGE.parent / "recipes"
CONFIGS = _PACKAGE / "_configs" if _INSTALLED else _PACKAGE.parent / "configs"

_HEADER = re.compile(r"# recipe: (\w+)")


def recipe_names() -> list[str]:
    """The recipes, in alphabetical order.

    >>> "pretrain_clm" in recipe_names()
    True
    """
    return sorted(path.stem for path in RECIPES.glob("*.py"))


def find_recipe(name: str) -> Path:
    """The script of the recipe `name`; ValueError with the nearest name when there is none.

    >>> find_recipe("pretrain_clm").name
    'pretrain_clm.py'
    """
    if name not in recipe_names():
        names = ", ".join(recipe_names())
        raise UserError(f"no recipe {name!r}{did_you_mean(name, recipe_names())} Choose one of {names}.")
    return RECIPES / f"{name}.py"


def config_folder(name: str) -> Path:
    """The folder with the configs of the recipe `name`; ValueError as in `find_recipe`.

    >>> (config_folder("pretrain_clm") / "smoke.yaml").is_file()
    True
    """
    return CONFIGS / find_recipe(name).stem


def recipe_of(config: Path) -> str | None:
    """The recipe that a config is for, None where it cannot be told.

    A run's own config.yaml says it in its first line, `# recipe: pretrain_clm`; any other is in the folder of its
    recipe, `configs/pretrain_clm/`.

    >>> recipe_of(config_folder("pretrain_clm") / "smoke.yaml")
    'pretrain_clm'
    """
    script = find_script(config)
    return None if script is None else script.stem


def find_script(config: Path) -> Path | None:
    """The script that a config is for, None where it cannot be told: see `recipe_of`.

    A copy of one's own, `X/mine.py` or `X/recipes/mine.py` for `X/configs/mine/run.yaml`, comes before the recipe of
    that name in the package.

    >>> find_script(config_folder("pretrain_clm") / "smoke.yaml").name
    'pretrain_clm.py'
    """
    folder = config.resolve().parent
    name = _named_in(config) or folder.name
    beside = folder.parent.parent
    candidates = (beside / f"{name}.py", beside / "recipes" / f"{name}.py", RECIPES / f"{name}.py")
    return next((path for path in candidates if path.is_file()), None)


def _named_in(config: Path) -> str | None:
    """The recipe of the header of a run's own config."""
    if not config.is_file():
        return None
    with config.open(encoding="utf-8", errors="replace") as file:
        header = _HEADER.match(file.readline())
    return header[1] if header else None


def import_script(script: Path) -> ModuleType:
    """A script as a module: what it declares, without running it; what lies beside it can be imported as well.

    Raises ValueError when a package is missing that it needs.
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
        raise UserError(
            f"{script.name} needs {error.name}, which is not installed; pip install 'hfwarmup[sft]' brings what the "
            "recipes need."
        ) from None
    finally:
        sys.path.pop(0)
    return module


def summary(script: Path) -> str:
    """The first line of a script's docstring.

    >>> summary(find_recipe("accelerate_loop"))
    'The pretraining of pretrain_clm without a Trainer: a raw accelerate loop, with a named warmup schedule.'
    """
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def packs_blocks(script: Path) -> bool:
    """Whether each sample of a recipe has block_size tokens: it then tells its plan the tokens of a sample.

    >>> packs_blocks(find_recipe("pretrain_clm")), packs_blocks(find_recipe("finetune_sft"))
    (True, False)
    """
    return "tokens_per_sample" in script.read_text(encoding="utf-8")


def trains_with_trainer(script: Path) -> bool:
    """Whether a Trainer trains the model of a script, as its literal `FACTS` says; True where it says nothing.

    >>> trains_with_trainer(find_recipe("pretrain_clm"))
    True
    """
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["FACTS"]:
            return bool(ast.literal_eval(node.value).get("trainer", True))
    return True


def recipes_with(setting: str) -> list[str]:
    """The recipes that have a setting of their own, or one of this package's arguments, under this name.

    Settings of transformers' TrainingArguments are not looked at; every recipe has those.

    >>> recipes_with("window_cycles"), recipes_with("mlm_probability")
    (['train_timeseries'], ['pretrain_mlm'])
    """
    return [name for name in recipe_names() if setting in _settings_of(find_recipe(name))]


def _settings_of(script: Path) -> set[str]:
    """The fields of the classes that a script declares, and of those that it imports from this package's arguments."""
    shared, own = _declared(_PACKAGE / "recipe" / "arguments.py"), _declared(script)
    imported = {
        alias.name
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "hfwarmup.recipe.arguments"
        for alias in node.names
    }
    return set().union(*own.values(), *(shared[name] for name in imported & shared.keys()))


def _declared(script: Path) -> dict[str, set[str]]:
    """Class -> the names that its body annotates."""
    return {
        node.name: {
            statement.target.id
            for statement in node.body
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        }
        for node in ast.parse(script.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
