"""The direction is the step the optimizer then makes, and reading it changes nothing."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RAdam

from hfwarmup.measuring.direction import loss_along, parameters_of, update_direction
from hfwarmup.measuring.preserving_state import preserving_state

OPTIMIZERS = {
    "sgd": partial(SGD, lr=0.1),
    "heavy ball with L2": partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    "adam": partial(Adam, lr=0.1),
    "adamw": partial(AdamW, lr=0.1, weight_decay=0.3),
    "adamw fused": partial(AdamW, lr=0.1, weight_decay=0.3, fused=True),
    "adamw foreach": partial(AdamW, lr=0.1, weight_decay=0.3, foreach=True),
    "adamw with a tensor": lambda params: AdamW(params, lr=torch.tensor(0.1), weight_decay=0.3),
    "radam": partial(RAdam, lr=0.1, decoupled_weight_decay=True, weight_decay=0.3),
}


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def set_gradients(layer: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("updates", [0, 7])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_then_makes_that_step(layer, name, updates):
    optimizer = OPTIMIZERS[name](layer.parameters())
    for update in range(updates):
        set_gradients(layer, update)
        optimizer.step()
    set_gradients(layer, 99)
    direction = update_direction(optimizer)
    expected = [parameter.detach() - 0.1 * step for parameter, step in zip(layer.parameters(), direction, strict=True)]
    optimizer.step()
    torch.testing.assert_close(list(layer.parameters()), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_reading_it_leaves_no_trace(layer, name):
    optimizer = OPTIMIZERS[name](layer.parameters())
    counted = []
    optimizer.register_step_post_hook(lambda *_: counted.append(1))
    set_gradients(layer, 0)
    optimizer.step()
    set_gradients(layer, 1)
    before = copy.deepcopy([layer.state_dict(), [p.grad for p in layer.parameters()], optimizer.state_dict()])
    update_direction(optimizer)
    after = [layer.state_dict(), [p.grad for p in layer.parameters()], optimizer.state_dict()]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert counted == [1]


def test_a_small_gradient_is_not_lost_beside_a_large_weight():
    weight = nn.Parameter(torch.tensor([1000.0]))
    weight.grad = torch.tensor([1e-4])
    assert update_direction(SGD([weight], lr=0.1))[0].item() == pytest.approx(1e-4, rel=1e-5)


def test_groups_keep_their_share_and_order(layer):
    optimizer = SGD([{"params": [layer.bias]}, {"params": [layer.weight]}], lr=0.1)
    set_gradients(layer, 0)
    bias, weight = update_direction(optimizer, relative_lrs=[1.0, 0.25])
    torch.testing.assert_close(bias, layer.bias.grad)
    torch.testing.assert_close(weight, 0.25 * layer.weight.grad)
    assert [id(p) for p in parameters_of(optimizer)] == [id(layer.bias), id(layer.weight)]


def test_a_parameter_without_gradient_stays(layer):
    optimizer = AdamW(layer.parameters(), weight_decay=0.1)
    layer.weight.grad = torch.ones_like(layer.weight)
    assert update_direction(optimizer)[1].eq(0).all()


def test_the_loss_along_a_line_leaves_the_weights_even_when_it_fails(layer):
    before = copy.deepcopy(layer.state_dict())
    direction = [torch.ones_like(parameter) for parameter in layer.parameters()]
    torch.testing.assert_close(
        loss_along(list(layer.parameters()), direction, lambda: float(layer.bias[0].item()))(0.1),
        before["bias"][0].item() - 0.1,
    )

    def failing() -> float:
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        loss_along(list(layer.parameters()), direction, failing)(0.1)
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


def test_a_model_is_left_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    model(torch.randn(8, 4)).sum().backward()
    before = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()], torch.get_rng_state()
    with preserving_state(model):
        assert not model[2].training
        model.train()
        model(torch.randn(8, 4)).sum().backward()
    after = model.state_dict(), [p.grad for p in model.parameters()], torch.get_rng_state()
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert [layer.training for layer in model] == [True, False, True]
