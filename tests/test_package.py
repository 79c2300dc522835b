"""The package as a whole: its public list, what importing it loads, what each room may import, and its docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import hfwarmup

PACKAGE = Path(hfwarmup.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
PUBLIC = [
    "register",
    "watch_warmup",
    "diagnose",
    "RunRecorder",
    "NonFiniteGuard",
    "WarmupArguments",
    "plan_training",
    "planned_arguments",
    "WarmupScheduler",
    "warmup",
    "stretch_warmup",
    "GIAdamW",
    "get_schedule",
    "plan_run",
    "Plan",
    "parse_duration",
    "Duration",
    "UserError",
]


class Room(NamedTuple):
    """What the modules of a room may import, anywhere in them."""

    own: str
    """rooms of this package, or single modules of one"""
    outside: str = ""
    """packages beside the standard library, which every installation has"""
    extras: tuple[tuple[str, str], ...] = ()
    """(package, the extra that installs it)"""


DATA = "datasets evaluate tokenizers huggingface_hub numpy pyarrow tqdm"
ROOMS = {
    # room, or module at the top -> what it may import; a room imports those above it, never one below
    "errors": Room(own=""),
    "schedules": Room(own="errors schedules"),
    "planning": Room(own="errors schedules planning", outside="ruamel"),
    "run_folder": Room(own="errors schedules run_folder"),
    "measuring": Room(own="errors measuring", outside="torch"),
    "optim": Room(own="errors schedules planning measuring optim", outside="torch"),
    "reporting": Room(
        own="errors schedules planning measuring.verdict measuring.spikes run_folder reporting",
        outside="matplotlib huggingface_hub",
        extras=(("plotly", "report"), ("jinja2", "report"), ("markupsafe", "report")),
    ),
    "trainer": Room(
        own="errors schedules planning run_folder measuring optim reporting trainer",
        outside="torch transformers accelerate aenum numpy psutil tqdm matplotlib",
        extras=(("trackio", "tracking"),),
    ),
    "recipe": Room(
        own="errors schedules planning run_folder measuring optim reporting trainer recipe",
        outside=f"torch transformers accelerate {DATA}",
    ),
    "commands": Room(
        own="errors schedules planning run_folder measuring optim reporting trainer recipe commands",
        outside=f"typer rich ruamel psutil torch transformers accelerate {DATA}",
    ),
    "cli": Room(own="commands", outside="typer"),
    "run": Room(own="errors planning trainer"),
    "__init__": Room(own=""),  # it loads the public names by their text
}  # fmt: skip
LIGHT = {
    # rooms -> packages that a process does not load when it imports all modules of them
    "errors schedules planning run_folder reporting": {"torch", "transformers", "accelerate", "datasets"},
    "measuring optim": {"transformers", "accelerate", "datasets"},
}
PURE = ("schedules", "measuring", "planning")
"""Rooms whose functions are pure, so that a doctest can show each."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return ".".join(("hfwarmup", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def each_file(*rooms: str) -> pytest.MarkDecorator:
    """A case for each module, or for each of some rooms."""
    paths = [path for path in FILES if not rooms or room_of(path) in rooms]
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(PACKAGE)))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module that an import names, whether the import runs with the file), but for those under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lazy = {inner for node in ast.walk(tree) if isinstance(node, functions) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            submodules = [f"{module}.{alias.name}" for alias in node.names if is_module(f"{module}.{alias.name}")]
            yield from ((name, node not in lazy) for name in submodules or [module])


def is_module(name: str) -> bool:
    own = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("hfwarmup.") and (own.is_dir() or own.with_suffix(".py").is_file())


def outside_of(path: Path) -> set[str]:
    """The packages that a module imports, beside this one and the standard library."""
    return {name.partition(".")[0] for name, _ in imports(path)} - {"hfwarmup", *sys.stdlib_module_names}


def loaded_by(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `program`."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    finished = subprocess.run([sys.executable, "-c", f"{program}; {report}"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def test_the_public_names_are_these():
    assert hfwarmup.__all__ == list(hfwarmup._HOMES) == PUBLIC


def test_type_checkers_find_the_public_names_where_they_are_loaded_from():
    (block,) = [node for node in ast.parse(inspect.getsource(hfwarmup)).body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == hfwarmup._HOMES


def test_dir_lists_the_public_names_only():
    assert [name for name in dir(hfwarmup) if not re.fullmatch(r"__\w+__", name)] == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(hfwarmup, name)
    assert thing.__name__ == name
    assert thing.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'hfwarmup' has no attribute 'warmpu'$"):
        hfwarmup.warmpu  # noqa: B018


def test_a_star_import_brings_the_public_names():
    namespace: dict[str, object] = {}
    exec("from hfwarmup import *", namespace)
    assert set(PUBLIC) <= set(namespace)


FAST = [
    # what a program does, and it must load none of the heavy packages
    "import hfwarmup",
    "import hfwarmup; hfwarmup.get_schedule('noam', peak_lr=1, num_warmup_steps=2, num_training_steps=3)(1)",
    "import hfwarmup; hfwarmup.plan_run(learning_rate=1, warmup='5%', total_steps=9, global_batch_size=1)",
    "import hfwarmup; hfwarmup.diagnose([], total_steps=1, warmup_steps=1, peak_lr=1)",
    "import hfwarmup.planning.config",
]


@pytest.mark.parametrize("program", FAST)
def test_without_torch_transformers_and_numpy(program):
    heavy = {"torch", "transformers", "numpy", "accelerate", "datasets", "matplotlib", "aenum"}
    assert loaded_by(program) & heavy == set()


def test_the_scheduler_needs_torch_and_not_transformers():
    loaded = loaded_by("import hfwarmup; hfwarmup.WarmupScheduler")
    assert "torch" in loaded
    assert loaded & {"transformers", "accelerate", "datasets"} == set()


@pytest.mark.parametrize(("rooms", "heavy"), LIGHT.items())
def test_a_light_room_loads_nothing_heavy(rooms, heavy):
    modules = [name_of(path) for path in FILES if room_of(path) in rooms.split()]
    assert loaded_by(f"import {', '.join(modules)}") & heavy == set()


def test_every_room_is_in_the_table():
    assert {room_of(path) for path in FILES} == set(ROOMS)


def test_rooms_import_one_way():
    """Only rooms that stand above it in the table, and itself."""
    rooms = list(ROOMS)
    for index, (name, room) in enumerate(ROOMS.items()):
        assert {own.partition(".")[0] for own in room.own.split()} <= set(rooms[: index + 1]), name


@each_file()
def test_a_module_imports_what_its_room_may(path):
    room = ROOMS[room_of(path)]
    own = {name.removeprefix("hfwarmup.") for name, _ in imports(path) if name.startswith("hfwarmup.")}
    allowed = room.own.split()
    assert {name for name in own if not {name, name.partition(".")[0]} & set(allowed)} == set()
    assert outside_of(path) <= {*room.outside.split(), *dict(room.extras)}
    assert "hfwarmup" not in {name for name, _ in imports(path)}  # the flat list is for users


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "recipes").glob("*.py")), ids=lambda path: path.stem)
def test_a_recipe_imports_public_names_only(path):
    assert {name for name, _ in imports(path) if name.startswith("hfwarmup")} <= {"hfwarmup", "hfwarmup.recipe"}


@each_file("commands", "cli", "run")
def test_a_command_answers_at_once(path):
    """It loads what it works with when it is called: `hfwarmup --help` needs typer and the light rooms."""
    at_once = {name for name, is_first in imports(path) if is_first}
    own = {name.split(".")[1] for name in at_once if name.startswith("hfwarmup.")}
    assert own <= {"errors", "schedules", "planning", "run_folder", "commands"}
    outside = {name.partition(".")[0] for name in at_once} - {"hfwarmup", *sys.stdlib_module_names}
    assert outside <= {"typer", "rich"}


def test_each_package_that_is_imported_is_declared():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {"ruamel": "ruamel.yaml"}  # import name -> name of the distribution, where they differ
    extras = dict(extra for room in ROOMS.values() for extra in room.extras)
    for package in sorted(set().union(*map(outside_of, FILES))):
        extra = extras.get(package)
        declared = project["optional-dependencies"][extra] if extra else project["dependencies"]
        assert names.get(package, package) in [re.split("[><=!~ [;]", line)[0] for line in declared], package


def test_the_version_is_written_once():
    metadata = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert metadata["project"]["dynamic"] == ["version"]
    assert metadata["tool"]["hatch"]["version"]["path"] == "hfwarmup/__init__.py"
    citation = (PACKAGE.parent / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [hfwarmup.__version__]
    assert f"\n## {hfwarmup.__version__}" in (PACKAGE.parent / "CHANGELOG.md").read_text(encoding="utf-8")


def module_of(path: Path) -> ModuleType:
    return importlib.import_module(name_of(path))


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


@each_file()
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
    "import_script": "it runs a recipe's file",
    "load_config": "it reads a file",
    "read_config": "it reads a file",
    "compile_curve": "get_schedule shows it",
    "resolve_options": "ScheduleOptions.resolve shows it",
}


@each_file(*PURE)
def test_every_pure_function_has_a_doctest(path):
    functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    without = [
        node.name
        for node in functions
        if not node.name.startswith("_") and ">>>" not in (ast.get_docstring(node) or "")
    ]
    assert set(without) <= set(NO_DOCTEST)
