"""The sharpness above which training at a learning rate becomes unstable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from hfwarmup.errors import UserError


def stability_threshold(optimizer: Optimizer) -> float:
    """The sharpness above which a step at the optimizer's learning rate overshoots further each time.

    On a quadratic, with learning rate eta, momentum beta and dampening tau:

    * SGD: 2 (1 + beta) / (eta (1 - tau)), so 2 / eta without momentum; Nesterov: 2 (1 + beta) / ((1 + 2 beta) eta).
      An L2 penalty is part of the curvature and is taken off.
    * Adam, AdamW: (2 / eta - lambda) (1 + beta1) / (1 - beta1) for the sharpness that `adam_preconditioner` sees, with
      the decoupled decay lambda; 38 / eta at beta1 = 0.9. An L2 penalty is left out.

    If the groups differ, the one with the largest learning rate counts.

    Raises:
        UserError: no threshold is known for the optimizer, or its learning rate is 0.

    Source: Cohen et al. 2021, arXiv:2103.00065, appendix B; Cohen et al. 2022, arXiv:2207.14484, for Adam.

    >>> weight = [torch.nn.Parameter(torch.zeros(1))]
    >>> round(stability_threshold(torch.optim.SGD(weight, lr=0.1, momentum=0.9)), 9)
    38.0
    >>> round(stability_threshold(torch.optim.AdamW(weight, lr=0.1, weight_decay=0.0)), 9)
    380.0
    """
    group = max(optimizer.param_groups, key=lambda group: float(group["lr"]))
    lr, decay = float(group["lr"]), group.get("weight_decay", 0.0)
    if lr <= 0.0:
        raise UserError(f"learning rate {lr}: a step of 0 is stable at any sharpness; measure later.")
    if isinstance(optimizer, SGD):
        beta, dampening = group["momentum"], group["dampening"]
        if group["nesterov"]:
            return 2 * (1 + beta) / ((1 + 2 * beta) * lr) - decay
        return 2 * (1 + beta) / (lr * (1 - dampening if beta else 1.0)) - decay
    if isinstance(optimizer, (Adam, AdamW)):
        beta1 = float(group["betas"][0])
        decoupled = isinstance(optimizer, AdamW) or group.get("decoupled_weight_decay", False)
        return (2 / lr - (decay if decoupled else 0.0)) * (1 + beta1) / (1 - beta1)
    raise UserError(f"{type(optimizer).__name__}: no stability threshold is known for it; use SGD, Adam or AdamW.")


def adam_preconditioner(optimizer: Optimizer, gradients: Sequence[Tensor]) -> list[Tensor]:
    """P = (sqrt(v_hat) + eps) (1 - beta1^t) of the next update t, with v after it has taken in `gradients`.

    v = beta2 v + (1 - beta2) g^2 and v_hat = v / (1 - beta2^t), so that P is what the next update divides by (Cohen et
    al. 2022, arXiv:2207.14484; Kalra & Barkeshli 2024 print it without the root, and compute it with it).

    Args:
        optimizer: an Adam or AdamW, before or after its first step.
        gradients: a tensor a parameter, in the order of the optimizer's groups.

    Raises:
        UserError: the optimizer is neither.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> adam_preconditioner(torch.optim.Adam([weight], eps=0.0), [torch.tensor([3.0, 4.0])])
    [tensor([0.3000, 0.4000])]
    """
    if not isinstance(optimizer, (Adam, AdamW)):
        raise UserError(f"{type(optimizer).__name__} has no preconditioner of Adam's form; use Adam or AdamW.")
    given = iter(gradients)
    found = []
    for group in optimizer.param_groups:
        beta1, beta2 = map(float, group["betas"])
        for parameter in group["params"]:
            state, squared = optimizer.state.get(parameter, {}), next(given).detach() ** 2
            update = (float(state["step"]) if state else 0.0) + 1
            v = squared * (1 - beta2) + (beta2 * state["exp_avg_sq"] if state else 0.0)
            if group["amsgrad"] and state:
                v = torch.maximum(v, state["max_exp_avg_sq"])
            found.append(((v / (1 - beta2**update)).sqrt() + group["eps"]) * (1 - beta1**update))
    return found
