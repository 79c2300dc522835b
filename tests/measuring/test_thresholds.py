"""Thresholds of stability against torch's own optimizers on quadratics of one dimension."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW

from hfwarmup.measuring.sharpness import sharpness
from hfwarmup.measuring.thresholds import adam_preconditioner, stability_threshold

LR = 0.1
OPTIMIZERS = {
    # name -> (optimizer, threshold x learning rate). Adam's eps is so large that its preconditioner is eps = 1.
    "gradient descent": (partial(SGD, lr=LR), 2.0),
    "heavy ball": (partial(SGD, lr=LR, momentum=0.9), 3.8),
    "dampened heavy ball": (partial(SGD, lr=LR, momentum=0.9, dampening=0.5), 7.6),
    "nesterov": (partial(SGD, lr=LR, momentum=0.9, nesterov=True), 2 * 1.9 / 2.8),
    "descent with L2": (partial(SGD, lr=LR, weight_decay=0.5), 2.0 - 0.5 * LR),
    "adam": (partial(Adam, lr=LR, betas=(0.9, 0.999), eps=1.0), 38.0),
    "adam, beta1 0.5": (partial(Adam, lr=LR, betas=(0.5, 0.999), eps=1.0), 6.0),
    "adamw": (partial(AdamW, lr=LR, betas=(0.9, 0.999), eps=1.0, weight_decay=0.5), 38.0 - 19 * 0.5 * LR),
}


def grows(make_optimizer, curvature: float) -> bool:
    """Whether the optimizer runs away from the minimum of curvature x^2 / 2, over 800 updates from 1e-100."""
    x = nn.Parameter(torch.tensor([1e-100], dtype=torch.float64))
    optimizer = make_optimizer([x])
    early = 0.0
    for update in range(800):
        x.grad = curvature * x.detach()
        optimizer.step()
        if 300 <= update < 400:
            early = max(early, abs(x.item()))
    return abs(x.item()) > early


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_turns_unstable_within_one_percent_of_the_threshold(name):
    make_optimizer, multiple = OPTIMIZERS[name]
    threshold = stability_threshold(make_optimizer([nn.Parameter(torch.zeros(1))]))
    assert threshold * LR == pytest.approx(multiple, rel=1e-9)
    assert not grows(make_optimizer, 0.99 * threshold)
    assert grows(make_optimizer, 1.01 * threshold)


def test_the_largest_learning_rate_counts():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.4, 0.2)]
    assert stability_threshold(SGD(groups)) == pytest.approx(2 / 0.4)


def test_an_unknown_optimizer_is_an_error():
    weight = [nn.Parameter(torch.zeros(1))]
    with pytest.raises(ValueError, match=r"^Adagrad: no stability threshold is known for it; use SGD, Adam"):
        stability_threshold(Adagrad(weight))
    with pytest.raises(ValueError, match=r"^Adagrad has no preconditioner of Adam's form; use Adam or AdamW\.$"):
        adam_preconditioner(Adagrad(weight), [])


def test_a_learning_rate_of_zero_is_an_error():
    with pytest.raises(
        ValueError, match=r"^learning rate 0.0: a step of 0 is stable at any sharpness; measure later\.$"
    ):
        stability_threshold(SGD([nn.Parameter(torch.zeros(1))], lr=0.0))


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("updates", [0, 3])
def test_the_preconditioner_is_what_the_next_update_divides_by(updates, amsgrad):
    """An update without first moment (beta1 = 0) is lr g / P."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = Adam([weight], lr=LR, betas=(0.0, 0.9), amsgrad=amsgrad)
    for update in range(updates):
        weight.grad = torch.tensor([3.0 - update, 0.1], dtype=torch.float64)
        optimizer.step()
    weight.grad = torch.tensor([0.5, 4.0], dtype=torch.float64)
    expected = weight.detach() - LR * weight.grad / adam_preconditioner(optimizer, [weight.grad])[0]
    optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_descent_at_the_edge_reads_as_one():
    """eta / eta_c = sharpness / threshold."""
    x = nn.Parameter(torch.ones(3))
    found = sharpness(lambda: (torch.tensor([1.0, 2.0, 20.0]) * x**2).sum() / 2, [x], tolerance=1e-6)
    assert found.value / stability_threshold(SGD([x], lr=LR)) == pytest.approx(1.0, rel=1e-3)
