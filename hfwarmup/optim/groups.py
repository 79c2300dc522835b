"""Parameter groups: split for warmups of their own lengths, and read for what a schedule needs to know of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from hfwarmup.errors import Range, UserError
from hfwarmup.schedules.named import takes_length_from_beta2

STRETCH = Range(0, above=True, remedy="a factor of the warmup's length, above 0")


def stretch_warmup(optimizer: Optimizer, model: nn.Module, stretch: Mapping[str, float]) -> None:
    """Give some parameters a longer or shorter warmup: parameter groups of their own, with a `warmup_stretch`.

    The warmup of a group takes `warmup_steps` x its stretch. Call it before the scheduler is made; in a Trainer between
    `trainer.create_optimizer()` and `trainer.train()`.

    Args:
        optimizer: its groups are split in place; all other settings of a group stay.
        model: gives the parameters' names.
        stretch: regular expression, searched in a parameter's name -> factor of the warmup's length, above 0. The first
            expression that matches a name counts.

    Raises:
        UserError: an expression matches no trainable parameter's name, or a factor is not above 0.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> from torch.optim import SGD
    >>> optimizer = SGD(model.parameters(), lr=0.1)
    >>> stretch_warmup(optimizer, model, {"^1": 0.5})
    >>> [(len(group["params"]), group["warmup_stretch"]) for group in optimizer.param_groups]
    [(2, 1.0), (2, 0.5)]
    """
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for pattern, factor in stretch.items():
        STRETCH.check(f"stretch[{pattern!r}]", factor)
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"stretch {pattern!r} is not a regular expression ({error}); correct it.") from None
        if not any(re.search(pattern, name) for name in names.values()):
            raise UserError(
                f"stretch {pattern!r} matches no parameter's name; one of them is {list(names.values())[-1]!r}."
            )
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        split: dict[float, list[int]] = {}
        for index, parameter in enumerate(group["params"]):
            name = names.get(parameter, "")
            factor = next((factor for pattern, factor in stretch.items() if re.search(pattern, name)), 1.0)
            split.setdefault(float(factor), []).append(index)
        each_parameters = [key for key in ("params", "param_names") if key in group]
        for factor, indices in split.items():
            lr = group["lr"].clone() if isinstance(group["lr"], torch.Tensor) else group["lr"]
            parts: dict[str, Any] = {key: [group[key][index] for index in indices] for key in each_parameters}
            groups.append({**group, **parts, "lr": lr, "warmup_stretch": factor})
    optimizer.param_groups[:] = groups


def with_beta2(optimizer: Optimizer, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options`, with the optimizer's beta2 if the warmup needs one and none is given."""
    if "beta2" in options or not takes_length_from_beta2(name, options):
        return options
    found = {group["betas"][1] for group in optimizer.param_groups if "betas" in group}
    if len(found) != 1:
        seen = "no betas" if not found else f"several ({', '.join(map(str, sorted(found)))})"
        raise UserError(f"{name!r} takes its length from beta2, and {type(optimizer).__name__} has {seen}; set beta2.")
    return {**options, "beta2": float(found.pop())}


def warmup_stretches(optimizer: Optimizer) -> list[float]:
    """Each group's `warmup_stretch`; empty if all of them are 1."""
    stretches = [float(group.get("warmup_stretch", 1.0)) for group in optimizer.param_groups]
    return stretches if set(stretches) != {1.0} else []
