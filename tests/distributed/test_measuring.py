"""Sharpness, critical learning rate and GIAdamW on two processes over gloo: replicated weights and those of FSDP2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_on_ranks
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import hfwarmup
from hfwarmup.measuring.critical_lr import critical_lr
from hfwarmup.measuring.direction import loss_along, update_direction
from hfwarmup.measuring.products import gradient, mean_over_ranks
from hfwarmup.measuring.sharpness import directional_sharpness, sharpness
from hfwarmup.measuring.thresholds import adam_preconditioner
from hfwarmup.trainer.probes.micro_batches import MicroBatchGradients

WORLD, BATCH, UPDATES = 2, 8, 5
LAYOUTS = ("replicated", "sharded")


def whole(tensors) -> list[torch.Tensor]:
    return [t.full_tensor() if isinstance(t, DTensor) else t for t in (tensor.detach() for tensor in tensors)]


def measure(*, rank: int, num_processes: int, sharded: bool) -> dict[str, Any]:
    """Everything that is measured, after a few updates of GIAdamW on the ranks' shares of one batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    inputs, targets = torch.randn(WORLD * BATCH, 6), torch.randint(3, (WORLD * BATCH,))
    share = slice(rank * BATCH, (rank + 1) * BATCH) if num_processes > 1 else slice(None)
    if sharded:
        for layer in (model[0], model[2], model):
            fully_shard(layer)
    parameters = list(model.parameters())

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(model(inputs[share]), targets[share])

    optimizer = hfwarmup.GIAdamW(parameters, lr=0.05, eps=1e-3, weight_decay=0.1)
    optimizer.zero_grad()
    for update in range(UPDATES + 1):
        for parameter, found in zip(parameters, gradient(loss, parameters), strict=True):
            parameter.grad = found
        optimizer.observe_gradients() if update == 0 else optimizer.step()
    before = whole(parameters)
    gradients = gradient(loss, parameters)
    preconditioner = adam_preconditioner(optimizer, gradients)
    direction = update_direction(optimizer)
    differences = {"method": "finite differences", "tolerance": 1e-4}
    found = sharpness(loss, parameters, **differences)
    loss_at = loss_along(parameters, direction, lambda: mean_over_ranks(loss().detach()).item())
    results = {
        "sharpness": found.value,
        "again": sharpness(loss, parameters, start=found.vector, **differences).products,
        "preconditioned": sharpness(loss, parameters, preconditioner=preconditioner, **differences).value,
        "directional": directional_sharpness(loss, parameters, direction),
        "critical": critical_lr(loss_at, start=0.05, upper=100.0).lr,
        "method": sharpness(loss, parameters, max_products=1).method,
        "weights": before,
        "direction": whole(direction),
    }
    torch.testing.assert_close(whole(parameters), before, rtol=0, atol=0)
    return results


def measure_both(rank: int, _: Path) -> dict[str, dict[str, Any]]:
    return {layout: measure(rank=rank, num_processes=WORLD, sharded=layout == "sharded") for layout in LAYOUTS}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank measured, by layout of the weights."""
    return run_on_ranks(measure_both, tmp_path_factory.mktemp("measuring"))


@pytest.fixture(scope="module")
def alone():
    return measure(rank=0, num_processes=1, sharded=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_measure_what_one_does(ranks, alone, layout):
    for rank in ranks:
        found = rank[layout]
        torch.testing.assert_close(found["weights"], alone["weights"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found["direction"], alone["direction"], rtol=1e-3, atol=1e-5)
        for name in ("sharpness", "preconditioned", "directional"):
            assert found[name] == pytest.approx(alone[name], rel=5e-3), name
        assert found["critical"] == pytest.approx(alone["critical"], rel=0.07)
        assert found["again"] <= 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_ranks_agree(ranks, layout):
    """To the last bit, or their searches would part."""
    for name in ("sharpness", "preconditioned", "directional", "critical"):
        assert ranks[0][layout][name] == ranks[1][layout][name]


def test_shards_have_no_double_backward(ranks):
    assert ranks[0]["replicated"]["method"] == "double backward"
    assert ranks[0]["sharded"]["method"] == "finite differences"


class Counted(nn.Module):
    """A loss of (3, 4) x for each label, over the labels of all ranks, as transformers makes it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, labels, num_items_in_batch):
        return len(labels) * (self.weight @ torch.tensor([3.0, 4.0])) / num_items_in_batch * WORLD


def unequal_parts(rank: int, _: Path) -> tuple[float, float]:
    model, gradients = Counted(), MicroBatchGradients()
    gradients.watch(model)
    for count in ((1, 3), (2, 2))[rank]:
        model(labels=torch.zeros(count), num_items_in_batch=8).backward()
    return gradients.squared_norm_and_share(accumulation=2)


def test_micro_batches_of_unequal_parts_on_ranks(tmp_path):
    """Each has the gradient (3, 4); the parts are 1, 3, 2 and 2 of 8, so the sum of their squares is 18 / 64."""
    for squared_norm, share in run_on_ranks(unequal_parts, tmp_path):
        assert squared_norm == pytest.approx(25.0)
        assert share / WORLD == pytest.approx(18 / 64)
