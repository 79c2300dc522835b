"""Measure a model in the middle of its training, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def preserving_state(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode, without gradients; afterwards it is as before, to the last bit.

    It restores the mode of each module, buffers, `.grad` and torch's random states, but not the weights. Inside,
    dropout is off and batch norm uses its running statistics.

    >>> model = nn.Dropout(0.5)
    >>> with preserving_state(model):
    ...     model(torch.ones(3))
    tensor([1., 1., 1.])
    >>> model.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    devices = {parameter.device for parameter, _ in gradients if parameter.device.type != "cpu"}
    device_type = next(iter(devices)).type if devices else "cuda"
    for parameter, _ in gradients:
        parameter.grad = None
    model.eval()
    try:
        with torch.random.fork_rng([device.index for device in devices], device_type=device_type):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient
