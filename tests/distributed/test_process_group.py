"""The process group is left in the right order."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from hfwarmup.recipe.console import run_recipe


def test_the_group_outlives_the_model_that_a_recipe_has_wrapped():
    """The other order is a deadlock under gloo, seen at the end of a run of four processes."""
    group_at_the_models_end = []

    def main():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        model = DistributedDataParallel(torch.nn.Linear(1, 1))
        model.itself = [model]  # accelerate leaves such cycles, which only the collector frees
        weakref.finalize(model, lambda: group_at_the_models_end.append(dist.is_initialized()))

    run_recipe(main)
    assert group_at_the_models_end == [True]
    assert not dist.is_initialized()


def test_a_recipe_without_a_group_ends_too():
    run_recipe(lambda: None)


def test_an_error_of_a_recipe_keeps_its_traceback():
    def main():
        raise ValueError("of the recipe")

    with pytest.raises(ValueError, match=r"^of the recipe$"):
        run_recipe(main)
