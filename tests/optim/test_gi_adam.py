"""GIAdamW: Adam with a warmup of beta2 built in, whichever way torch runs it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import Adam, AdamW

import hfwarmup
from hfwarmup.measuring.products import gradient
from hfwarmup.measuring.sharpness import sharpness
from hfwarmup.measuring.thresholds import adam_preconditioner

SHAPES = ((5, 3), (3,))


def weights(dtype=torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def set_gradients(parameters, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def trained(parameters, optimizer, updates=range(1, 21)):
    for update in updates:
        set_gradients(parameters, update)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("beta2", [0.9, 0.999])
def test_it_is_adam_uncorrected_times_the_square_root(beta2):
    """Adam with v_0 = g_0^2, no correction of v, eps 0, and learning rate lr sqrt(1 - beta2^t)."""
    lr, beta1 = 0.1, 0.9
    parameters = weights(torch.float64)
    expected = [parameter.detach().clone() for parameter in parameters]
    optimizer = hfwarmup.GIAdamW(parameters, lr=lr, betas=(beta1, beta2), eps=0.0, weight_decay=0.0)
    set_gradients(parameters, 0)
    optimizer.observe_gradients()
    first = [torch.zeros_like(weight) for weight in expected]
    second = [parameter.grad**2 for parameter in parameters]
    for t in range(1, 21):
        set_gradients(parameters, t)
        for weight, m, v, parameter in zip(expected, first, second, parameters, strict=True):
            m.mul_(beta1).add_((1 - beta1) * parameter.grad)
            v.mul_(beta2).add_((1 - beta2) * parameter.grad**2)
            weight -= lr * math.sqrt(1 - beta2**t) * (m / (1 - beta1**t)) / v.sqrt()
        optimizer.step()
    torch.testing.assert_close([parameter.detach() for parameter in parameters], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "settings", [{"foreach": True}, {"fused": True}, {"lr": torch.tensor(0.1), "fused": True}], ids=str
)
@pytest.mark.parametrize("observed", [0, 3])
def test_all_variants_agree(settings, observed):
    results = []
    for variant in ({"foreach": False}, settings):
        parameters = weights()
        optimizer = hfwarmup.GIAdamW(parameters, **{"lr": 0.1, "weight_decay": 0.1, **variant})
        for seed in range(observed):
            set_gradients(parameters, 100 + seed)
            optimizer.observe_gradients()
        results.append(trained(parameters, optimizer))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_without_observation_the_first_gradients_serve():
    results = []
    for observes in (True, False):
        parameters = weights()
        optimizer = hfwarmup.GIAdamW(parameters, lr=0.1)
        if observes:
            set_gradients(parameters, 1)
            optimizer.observe_gradients()
        results.append(trained(parameters, optimizer))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def test_it_begins_at_the_mean_square_over_the_batches():
    parameters = weights()
    optimizer = hfwarmup.GIAdamW(parameters)
    squares = []
    for seed in range(4):
        set_gradients(parameters, seed)
        squares.append(parameters[0].grad ** 2)
        optimizer.observe_gradients()
    torch.testing.assert_close(optimizer.state[parameters[0]]["exp_avg_sq"], torch.stack(squares).mean(0))


def test_elements_without_gradient_begin_at_the_mean_of_the_others():
    weight = nn.Parameter(torch.zeros(4))
    optimizer = hfwarmup.GIAdamW([weight], betas=(0.9, 0.5))
    weight.grad = torch.tensor([1.0, 2.0, 0.0, 0.0])
    optimizer.observe_gradients()
    weight.grad = torch.zeros(4)
    optimizer.step()
    assert optimizer.state[weight]["exp_avg_sq"].tolist() == [0.5, 2.0, 1.25, 1.25]  # half of 1, 4, 2.5, 2.5


def test_a_tensor_without_any_gradient_stays_as_it_is():
    weight = nn.Parameter(torch.ones(2))
    optimizer = hfwarmup.GIAdamW([weight], weight_decay=0.0)
    weight.grad = torch.zeros(2)
    optimizer.step()
    assert weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_run_equals_the_whole(fused):
    whole, parts = weights(), weights()
    trained(whole, hfwarmup.GIAdamW(whole, lr=0.1, fused=fused))
    first = hfwarmup.GIAdamW(parts, lr=0.1, fused=fused)
    trained(parts, first, range(1, 9))
    second = hfwarmup.GIAdamW(parts, lr=0.1, fused=fused)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    trained(parts, second, range(9, 21))
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)


def test_the_state_of_an_adamw_can_be_loaded():
    """Then it goes on as that AdamW would have."""
    ours, theirs = weights(), weights()
    adamw = AdamW(theirs, lr=0.1)
    trained(theirs, adamw, range(1, 9))
    trained(ours, AdamW(ours, lr=0.1), range(1, 9))
    optimizer = hfwarmup.GIAdamW(ours, lr=0.1)
    optimizer.load_state_dict(copy.deepcopy(adamw.state_dict()))
    trained(ours, optimizer, range(9, 21))
    trained(theirs, adamw, range(9, 21))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_parameter_that_joins_later_is_initialised_then():
    head, body = weights()
    optimizer = hfwarmup.GIAdamW([head, body], lr=0.1, weight_decay=0.0)
    trained([head], optimizer, range(1, 5))
    before = body.detach().clone()
    set_gradients([head, body], 9)
    optimizer.step()
    assert (body - before).abs().max().item() == pytest.approx(0.1 * math.sqrt(1 - 0.999), rel=1e-3)


def test_a_group_that_joins_later_begins_at_its_own_first_gradient():
    """`add_param_group`: the new weight moves as in an optimizer of its own."""
    early, late, alone = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    optimizer, own = hfwarmup.GIAdamW([early], lr=0.1), hfwarmup.GIAdamW([alone], lr=0.1)
    early.grad = torch.ones(2)
    optimizer.step()
    optimizer.add_param_group({"params": [late]})
    late.grad = alone.grad = torch.tensor([3.0, -4.0])
    optimizer.step()
    own.step()
    assert torch.equal(late, alone)


def test_amsgrad_begins_at_the_gradient_too():
    parameters, plain = weights(), weights()
    first = trained(parameters, hfwarmup.GIAdamW(parameters, lr=0.1, amsgrad=True), [1])
    torch.testing.assert_close(first, trained(plain, hfwarmup.GIAdamW(plain, lr=0.1), [1]))


def test_observing_too_late_is_an_error():
    parameters = weights()
    optimizer = hfwarmup.GIAdamW(parameters)
    trained(parameters, optimizer, [1])
    with pytest.raises(
        RuntimeError,
        match=r"^GIAdamW already has a second moment; call observe_gradients before the first step and before "
        r"loading a state\.$",
    ):
        optimizer.observe_gradients()


def test_step_hooks_run_once_an_update():
    parameters = weights()
    AdamW(weights())  # torch wraps a class's step when its first instance is made
    optimizer = hfwarmup.GIAdamW(parameters)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    trained(parameters, optimizer, range(3))
    assert len(calls) == 3


@pytest.mark.parametrize("beta2", [0.95, 0.999])
def test_the_preconditioned_sharpness_is_lower_by_the_square_root(beta2):
    """Kalra & Barkeshli 2024, section 6.2: at the first update, on the same batch, by sqrt(1 - beta2)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    inputs, targets = torch.randn(16, 6), torch.randint(3, (16,))
    parameters = list(model.parameters())

    def loss():
        return nn.functional.cross_entropy(model(inputs), targets)

    gradients = gradient(loss, parameters)
    values = []
    for make in (Adam, hfwarmup.GIAdamW):
        optimizer = make(parameters, betas=(0.9, beta2))
        if make is hfwarmup.GIAdamW:
            loss().backward()
            optimizer.observe_gradients()
        preconditioner = adam_preconditioner(optimizer, gradients)
        values.append(sharpness(loss, parameters, preconditioner=preconditioner).value)
    assert values[0] / values[1] == pytest.approx(1 / math.sqrt(1 - beta2), rel=0.05)
