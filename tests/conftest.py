"""What several folders of tests share: a recipe imported, and the state of the process as it was after running one."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import datasets
import pytest
import torch
import transformers

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="module")
def own_process_state():
    """One thread, no bars; what running a recipe changes in this process is put back."""
    logger, threads = logging.getLogger("hfwarmup"), torch.get_num_threads()
    before = logger.handlers, logger.propagate, logger.level
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
    torch.set_num_threads(threads)
    logger.handlers, logger.propagate, logger.level = before
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def load_recipe(own_process_state) -> Callable[[str], ModuleType]:
    """Imports a recipe by its name."""
    loaded = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        loaded.append(name)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]
