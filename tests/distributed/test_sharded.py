"""Plan, schedule and weight decay on the sharded parameters of FSDP2: two processes over gloo."""

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
from hfwarmup.optim.groups import stretch_warmup

UPDATES, BATCH, WORLD = 8, 4, 2
MODES = ("coupled", "proportional", "independent", "constant")


def train(mode: str, *, num_processes: int, rank: int, sharded: bool) -> dict[str, Any]:
    """Eight updates on the global batch; what was applied at each of them, and the weights at the end."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    samples, targets = torch.randn(UPDATES, WORLD * BATCH, 8), torch.randn(UPDATES, WORLD * BATCH, 2)
    if sharded:
        for layer in (model[0], model[2], model):
            fully_shard(layer)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    plan = hfwarmup.plan_run(
        learning_rate=1e-3,
        warmup=2,
        total_steps=UPDATES,
        per_device_batch_size=BATCH,
        num_processes=num_processes,
        gradient_accumulation_steps=WORLD // num_processes,
        reference_batch_size=BATCH,
    )
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.peak_lr)
    stretch_warmup(optimizer, model, {"^2": 0.5})
    scheduler = hfwarmup.WarmupScheduler(
        optimizer,
        "warmup_linear",
        num_warmup_steps=plan.warmup_steps,
        num_training_steps=plan.total_steps,
        final_ratio=0.1,
        weight_decay=mode,
    )
    share = slice(rank * BATCH, (rank + 1) * BATCH) if num_processes > 1 else slice(None)
    applied = []
    for inputs, outputs in zip(samples, targets, strict=True):
        nn.functional.mse_loss(model(inputs[share]), outputs[share]).backward()
        applied.append(
            [(group["warmup_stretch"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        )
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    weights = [p.full_tensor() if isinstance(p, DTensor) else p for p in (p.detach() for p in model.parameters())]
    return {"applied": applied, "weights": weights, "plan": (plan.peak_lr, plan.warmup_steps)}


def train_in_all_modes(rank: int, _: Path) -> dict[str, dict[str, Any]]:
    return {mode: train(mode, num_processes=WORLD, rank=rank, sharded=True) for mode in MODES}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """What each rank applied, by mode of the weight decay."""
    return run_on_ranks(train_in_all_modes, tmp_path_factory.mktemp("sharded"))


@pytest.mark.parametrize("mode", MODES)
def test_shards_are_trained_as_the_whole(sharded, mode):
    whole = train(mode, num_processes=1, rank=0, sharded=False)
    for rank in sharded:
        assert rank[mode]["plan"] == whole["plan"] == (2e-3, 4)
        assert rank[mode]["applied"] == whole["applied"]
        torch.testing.assert_close(rank[mode]["weights"], whole["weights"], rtol=1e-4, atol=1e-6)


def linear(update: int, warmup_steps: int) -> float:
    """From 1e-7 to 2e-3, and down to a tenth of it."""
    if update < warmup_steps:
        return 1e-7 + (2e-3 - 1e-7) * update / warmup_steps
    return 2e-4 + (2e-3 - 2e-4) * (UPDATES - update) / (UPDATES - warmup_steps)


@pytest.mark.parametrize(
    ("mode", "coefficient"),
    [
        ("coupled", lambda _: 0.1),
        ("proportional", lambda lr: 0.1 * lr / 2e-3),
        ("independent", lambda _: 0.1 / 2e-3),
        ("constant", lambda lr: 0.1 / lr),
    ],
)
def test_shards_follow_the_formula(sharded, mode, coefficient):
    for update, groups in enumerate(sharded[0][mode]["applied"]):
        assert [stretch for stretch, _, _ in groups] == [1.0, 0.5, 1.0, 0.5]
        for index, (stretch, lr, weight_decay) in enumerate(groups):
            assert lr == pytest.approx(linear(update, round(4 * stretch)), rel=1e-12)
            assert weight_decay == (pytest.approx(coefficient(lr), rel=1e-12) if index < 2 else 0.0)


def test_the_weight_decay_makes_a_difference(sharded):
    """Else the equality of the weights would say nothing about it."""
    weights = [sharded[0][mode]["weights"][0] for mode in MODES]
    assert not any(torch.allclose(weights[0], other, rtol=1e-4, atol=1e-6) for other in weights[1:])
