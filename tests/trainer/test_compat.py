"""Only trainer/compat.py uses internals of transformers and accelerate, so a new version of them needs one edit."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hfwarmup
from hfwarmup.trainer import compat

ROOT = Path(__file__).parents[2]
COMPAT = Path(compat.__file__)
SOURCES = sorted({*Path(hfwarmup.__file__).parent.rglob("*.py"), *(ROOT / "recipes").glob("*.py")} - {COMPAT})

LIBRARIES = ("transformers", "accelerate")
PUBLIC_MODULES = {*LIBRARIES, "transformers.integrations", "transformers.utils.logging", "accelerate.utils"}
PRIVATE_OF_OTHERS = {
    # of libraries that compat.py is not about
    "_exit",  # os
    "_fingerprint",  # datasets
    "_indices",  # datasets
    "_init_group",  # torch's optimizers
    "_schedulers",  # torch's SequentialLR and ChainedScheduler
}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_public(module: str, name: str) -> bool:
    """Whether `name` may be imported from `module`."""
    if f"{module}.{name}" in PUBLIC_MODULES:
        return True
    if module not in PUBLIC_MODULES or is_private(name):
        return False
    return not isinstance(getattr(importlib.import_module(module), name), ModuleType)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute of a name, empty for that of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    prefix = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{prefix}.{node.attr}" if prefix else ""


def reaches(tree: ast.AST) -> list[str]:
    """Each use of an internal of the libraries in a module."""
    own = PRIVATE_OF_OTHERS | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                f"import {alias.name}"
                for alias in node.names
                if alias.name.partition(".")[0] in LIBRARIES and alias.name not in PUBLIC_MODULES
            ]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            found += [
                f"from {node.module} import {alias.name}"
                for alias in node.names
                if not is_public(node.module, alias.name)
            ]
        elif isinstance(node, ast.Attribute):
            found += reached_attribute(node, own)
        elif isinstance(node, ast.Call) and dotted(node.func) in ("getattr", "setattr", "hasattr"):
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            found += [f"{node.func.id} {name}"] if is_private(name) and name not in own else []
    return found


def reached_attribute(node: ast.Attribute, own: set[str]) -> list[str]:
    """The internal that an attribute is, if it is one; `own` are private names that it may have."""
    owner = dotted(node.value)
    if owner.partition(".")[0] in LIBRARIES:
        inside_public = any(module.startswith(f"{owner}.{node.attr}") for module in PUBLIC_MODULES)
        return [] if inside_public or is_public(owner, node.attr) else [f"{owner}.{node.attr}"]
    if is_private(node.attr) and owner not in ("self", "cls") and node.attr not in own:
        return [f".{node.attr}"]
    if node.attr == "callback_handler":
        return [".callback_handler"]
    is_written = isinstance(node.ctx, ast.Store)
    return [".create_model_card ="] if node.attr == "create_model_card" and is_written else []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from transformers.trainer import DEFAULT_CALLBACKS", ["from transformers.trainer import DEFAULT_CALLBACKS"]),
        ("from transformers import trainer_utils", ["from transformers import trainer_utils"]),
        ("def f():\n    import accelerate.state", ["import accelerate.state"]),
        ("transformers.trainer.DEFAULT_CALLBACKS", ["transformers.trainer.DEFAULT_CALLBACKS", "transformers.trainer"]),
        ("trainer._load_from_checkpoint(path)", ["._load_from_checkpoint"]),
        ("trainer.callback_handler.callbacks.insert(0, x)", [".callback_handler"]),
        ("trainer.create_model_card = write", [".create_model_card ="]),
        ("getattr(config, '_name_or_path', '')", ["getattr _name_or_path"]),
        ("[a.dest for a in HfArgumentParser(x)._actions]", ["._actions"]),
        # public, our own, or another library's
        ("from transformers import Trainer, CONFIG_MAPPING", []),
        ("from transformers.integrations import TensorBoardCallback", []),
        ("from transformers.utils import logging", []),
        ("transformers.utils.logging.set_verbosity_error()", []),
        ("transformers.set_seed(1)", []),
        ("from accelerate.utils import send_to_device, DistributedType", []),
        ("trainer.create_model_card()", []),
        ("self._rows = cls._rows", []),
        ("documents._fingerprint", []),
        ("from hfwarmup.trainer.compat import load_weights", []),
    ],
)  # fmt: skip
def test_an_internal_is_recognized(source, found):
    assert reaches(ast.parse(source)) == found


def test_no_other_module_uses_an_internal():
    found = {str(path.relative_to(ROOT)): reaches(tree_of(path)) for path in SOURCES}
    found = {path: internals for path, internals in found.items() if internals}
    assert found == {}


def test_those_of_compat_are_recognized():
    assert len(reaches(tree_of(COMPAT))) >= 12


# A new version of transformers: the steps of CONTRIBUTING

RENAMED = """
import importlib, pkgutil
import transformers.trainer
from transformers import trainer_utils

trainer_utils.prune_checkpoints = trainer_utils.rotate_checkpoints  # as a new version may do
del trainer_utils.rotate_checkpoints

import hfwarmup.trainer
for module in pkgutil.walk_packages(hfwarmup.trainer.__path__, "hfwarmup.trainer."):
    importlib.import_module(module.name)
"""


def test_a_renamed_internal_is_one_edit(tmp_path):
    shutil.copytree(COMPAT.parents[1], tmp_path / "hfwarmup", ignore=shutil.ignore_patterns("__pycache__"))

    def import_trainer() -> str:
        program = [sys.executable, "-c", RENAMED]
        return subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    copied = tmp_path / "hfwarmup" / "trainer" / "compat.py"
    *_, (last_file, _) = re.findall(r'File "(.*)", line (\d+)', broken := import_trainer())
    assert Path(last_file) == copied, broken
    copied.write_text(copied.read_text().replace("import rotate_checkpoints as", "import prune_checkpoints as"))
    assert import_trainer() == ""


FUNCTIONS = [
    name
    for name, thing in vars(compat).items()
    if inspect.isfunction(thing) and thing.__module__ == compat.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_says_which_version_it_is_for_and_why(name):
    paragraphs = inspect.getdoc(getattr(compat, name)).split("\n\n")
    assert [text for text in paragraphs if re.match(r"(transformers|accelerate) \d+\.\d+: ", text)]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_versions_are_those_that_the_tests_run_with(library):
    """Raising a constraint makes this fail until compat.py has been read again."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    major, minor = re.search(rf"^{library}==(\d+)\.(\d+)", constraints, re.MULTILINE).groups()
    tested = " ".join(compat.__doc__.split()).partition("The tests run with ")[2]
    assert f"{library} {major}.{minor}" in tested


def test_nothing_is_reached_that_nobody_uses():
    imported = {
        alias.name
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.module == "hfwarmup.trainer.compat"
        for alias in node.names
    }
    re_exported = {"TRAINER_STATE_NAME", "CallbackHandler", "AcceleratorConfig", "rotate_checkpoints"}
    assert {*FUNCTIONS, *re_exported} - imported == set()
