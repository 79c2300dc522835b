"""The package as a whole: its public list, what importing it loads, which way its imports run, and its docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hfwarmup

PACKAGE = Path(hfwarmup.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
PUBLIC = [
    "register",
    "get_schedule",
    "WarmupScheduler",
    "warmup",
    "GIAdamW",
    "plan_run",
    "Plan",
    "parse_duration",
    "Duration",
]
FLOORS = {
    # folder -> the folders of the package that its files may import at run time
    "schedules": {"schedules"},
    "measuring": {"measuring"},
    "planning": {"planning", "schedules"},
    "training": {"training", "planning", "schedules", "measuring", "recipe_files"},
    "tuning": {"tuning", "training", "planning", "schedules", "measuring", "recipe_files"},
    "reporting": {"reporting", "training", "planning", "schedules", "measuring", "recipe_files"},
    "commands": {
        "commands", "tuning", "reporting", "training", "planning", "schedules", "measuring", "recipe_files"
    },
}  # fmt: skip
PURE = ("schedules", "measuring", "planning")
"""Folders whose functions are pure, so that a doctest can show each."""


def loaded_by(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `program`."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    finished = subprocess.run([sys.executable, "-c", f"{program}; {report}"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def run_time_imports(path: Path) -> set[str]:
    """The modules that a file names in an import, but for those under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names.add(node.module or "")
    return names


def test_the_public_names_are_these():
    assert hfwarmup.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(hfwarmup, name)
    assert thing.__name__ == name
    assert thing.__doc__
    assert name in dir(hfwarmup)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'hfwarmup' has no attribute 'warmpu'$"):
        hfwarmup.warmpu  # noqa: B018


def test_a_star_import_brings_the_public_names():
    namespace: dict[str, object] = {}
    exec("from hfwarmup import *", namespace)
    assert set(PUBLIC) <= set(namespace)


LIGHT = [
    # what a program does, and it must load none of the heavy packages
    "import hfwarmup",
    "import hfwarmup; hfwarmup.get_schedule('noam', peak_lr=1, num_warmup_steps=2, num_training_steps=3)(1)",
    "import hfwarmup; hfwarmup.plan_run(learning_rate=1, warmup='5%', total_steps=9, global_batch_size=1)",
    "import hfwarmup.planning.config",
]


@pytest.mark.parametrize("program", LIGHT)
def test_without_torch_transformers_and_numpy(program):
    heavy = {"torch", "transformers", "numpy", "accelerate", "datasets", "matplotlib", "aenum"}
    assert loaded_by(program) & heavy == set()


def test_the_scheduler_needs_torch_and_not_transformers():
    loaded = loaded_by("import hfwarmup; hfwarmup.WarmupScheduler")
    assert "torch" in loaded
    assert loaded & {"transformers", "accelerate", "datasets"} == set()


def test_every_folder_has_its_floor():
    assert {folder_of(path) for path in FILES if path.parent != PACKAGE} <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    imported = run_time_imports(path)
    own = {name.split(".")[1] for name in imported if name.startswith("hfwarmup.")}
    folder = folder_of(path)
    if folder in FLOORS:
        assert own <= FLOORS[folder]
        assert "hfwarmup" not in imported  # the flat list is for users
    assert {name.partition(".")[0] for name in imported} & {"recipes", "tests", "benchmarks"} == set()


@pytest.mark.parametrize(
    "path", [path for path in FILES if folder_of(path) in ("schedules", "planning")], ids=lambda path: path.stem
)
def test_the_ground_floors_need_the_standard_library_only(path):
    """planning may read YAML as well."""
    outside = {name.partition(".")[0] for name in run_time_imports(path)} - set(sys.stdlib_module_names)
    allowed = {"hfwarmup", "ruamel"} if folder_of(path) == "planning" else {"hfwarmup"}
    assert outside <= allowed


def module_of(path: Path) -> ModuleType:
    dotted = ".".join(("hfwarmup", *path.relative_to(PACKAGE).with_suffix("").parts))
    return importlib.import_module(dotted.removesuffix(".__init__"))


def public_things(module: ModuleType) -> dict[str, object]:
    """Public functions and classes of a module, and the public methods of those, by name."""
    own = {name: thing for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__}
    things = {name: thing for name, thing in own.items() if inspect.isfunction(thing) or inspect.isclass(thing)}
    methods = {
        f"{owner_name}.{name}": getattr(owner, name)
        for owner_name, owner in things.items()
        if inspect.isclass(owner)
        for name, thing in vars(owner).items()
        if inspect.isfunction(thing) or isinstance(thing, property)
    }
    return {name: thing for name, thing in {**things, **methods}.items() if "._" not in name and name[0] != "_"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_thing_has_a_docstring(path):
    """A method may inherit its base's."""
    module = module_of(path)
    assert module.__doc__
    assert [name for name, thing in public_things(module).items() if not inspect.getdoc(thing)] == []


NO_DOCTEST = {
    # function -> why a doctest would show nothing
    "add_schedule": "it changes the registry",
    "user_factory": "it reads the registry",
    "schedule_names": "it reads the registry",
    "load_config": "it reads a file",
    "read_config": "it reads a file",
    "compile_curve": "get_schedule shows it",
    "resolve_options": "ScheduleOptions.resolve shows it",
}


@pytest.mark.parametrize(
    "path", [path for path in FILES if folder_of(path) in PURE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_every_pure_function_has_a_doctest(path):
    functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    without = [
        node.name
        for node in functions
        if not node.name.startswith("_") and ">>>" not in (ast.get_docstring(node) or "")
    ]
    assert set(without) <= set(NO_DOCTEST)
