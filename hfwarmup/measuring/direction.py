"""The step that an optimizer would make, and the loss along it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_MAGNIFIED = 2.0**20
"""Learning rate of the copied step: so large that rounding the weights does not blur the step."""


def update_direction(optimizer: Optimizer, *, relative_lrs: Sequence[float] | None = None) -> list[Tensor]:
    """d such that the next `optimizer.step()` would be theta - eta d, for the gradients that are there now.

    A copy of the optimizer makes the step, so weights, gradients, state, hooks and schedulers stay as they are. d
    includes moments, bias corrections and weight decay as the optimizer has them: AdamW's decoupled decay is the part
    lambda theta, an L2 penalty is in the gradient. It holds for every optimizer whose step is proportional to its
    learning rate (SGD, Adam, AdamW, RAdam, …), but not for one that needs a closure. It needs memory for a second copy
    of weights, gradients and state.

    Args:
        optimizer: its parameters have gradients in `.grad`; without one the direction is 0.
        relative_lrs: learning rate of each group relative to eta; None: 1 in all.

    Returns:
        A tensor a parameter, in the order of the optimizer's groups.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> weight.grad = torch.tensor([0.5, -0.5])
    >>> update_direction(torch.optim.SGD([weight], lr=0.1, weight_decay=1.0))
    [tensor([1.5000, 1.5000])]
    """
    copied = copy_optimizer(optimizer)
    scales = [1.0] * len(optimizer.param_groups) if relative_lrs is None else relative_lrs
    for group, scale in zip(copied.param_groups, scales, strict=True):
        lr = _MAGNIFIED * scale
        group["lr"] = torch.full_like(group["lr"], lr) if isinstance(group["lr"], Tensor) else lr
    copied.step()
    rows = zip(parameters_of(optimizer), parameters_of(copied), strict=True)
    return [(parameter.detach() - moved.detach()) / _MAGNIFIED for parameter, moved in rows]


def copy_optimizer(optimizer: Optimizer, *, share_parameters: bool = False) -> Optimizer:
    """The optimizer with copies of its state, parameters and gradients, and without its hooks and schedulers.

    With `share_parameters` the copy steps the same parameters, by their gradients, from a state of its own.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> weight.grad = torch.tensor([1.0])
    >>> copy_optimizer(torch.optim.SGD([weight], lr=0.5)).step()
    >>> weight.item()
    1.0
    """
    clones: dict[int, Any] = {}
    for parameter in parameters_of(optimizer):
        clones[id(parameter)] = parameter if share_parameters else _clone(parameter)
        # Shards cannot be deep-copied, so tensors are cloned here.
        state = optimizer.state.get(parameter, {})
        clones |= {id(value): value.detach().clone() for value in state.values() if isinstance(value, Tensor)}
    return copy.deepcopy(optimizer, clones)


def _clone(parameter: Tensor) -> Tensor:
    clone = parameter.detach().clone().requires_grad_(parameter.requires_grad)
    clone.grad = None if parameter.grad is None else parameter.grad.detach().clone()
    return clone


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of all groups, in order.

    >>> weights = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.ones(1))]
    >>> [weight.item() for weight in parameters_of(torch.optim.SGD([{"params": [w]} for w in weights]))]
    [0.0, 1.0]
    """
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def trained_parameters(optimizer: Optimizer) -> list[Tensor]:
    """Those of `parameters_of` that are trained; an optimizer may also hold frozen parameters, which it never moves.

    >>> weights = [torch.nn.Parameter(torch.ones(1), requires_grad=trains) for trains in (False, True)]
    >>> len(trained_parameters(torch.optim.SGD(weights)))
    1
    """
    return [parameter for parameter in parameters_of(optimizer) if parameter.requires_grad]


def loss_along(
    parameters: Sequence[Tensor], direction: Sequence[Tensor], loss: Callable[[], float]
) -> Callable[[float], float]:
    """eta -> `loss()` at theta - eta d. After each call the weights are the old ones, to the last bit.

    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> loss_at = loss_along([weight], [torch.tensor([2.0])], lambda: float(weight**2))
    >>> loss_at(0.25), weight.item()
    (0.25, 1.0)
    """
    weights = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def loss_at(lr: float) -> float:
        try:
            for parameter, weight, step in zip(parameters, weights, direction, strict=True):
                parameter.copy_(weight - lr * step)
            return loss()
        finally:
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.copy_(weight)

    return loss_at
