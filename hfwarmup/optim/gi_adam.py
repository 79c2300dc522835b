"""Gradient-initialised Adam: torch's AdamW with a second moment that starts at the squared gradient, not at 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from hfwarmup.errors import RunStopped


class GIAdamW(AdamW):
    """AdamW with v_0 = mean of g^2 over the batches seen before the first update, and both bias corrections kept.

    So v_t = beta2 v_{t-1} + (1 - beta2) g_t^2 has the size of g^2 from the start. The correction 1 / (1 - beta2^t)
    stays on purpose, and makes the first steps small: with eps = 0 it is Adam without the correction at the learning
    rate eta sqrt(1 - beta2^t), which is a warmup. beta2 sets its length: from 0.03 to 90% in 1660 updates at beta2 =
    0.999, from 0.22 to 90% in 33 updates at 0.95. So a smaller beta2 warms up less.

    Before the first update, show it the gradients of some batches with `observe_gradients`; without them it uses the
    gradients of the first update. The paper takes one batch. In the mean over several batches fewer elements are small
    by chance; the first updates of an element whose second moment starts too small are too large. Elements without any
    gradient, such as the embeddings of tokens that were in none of the batches, start at the mean of the other elements
    of their tensor.

    Update, arguments and state are torch's, with `foreach`, with `fused` and on sharded parameters. A loaded state is
    not initialised again; the state of an AdamW can be loaded.

    Args:
        params: those of `torch.optim.AdamW`.
        lr: that of `torch.optim.AdamW`.
        **settings: the others of `torch.optim.AdamW`.

    Source: Kalra & Barkeshli 2024, arXiv:2406.09405, section 6.2 and appendix I.2. The mean over batches and the value
    of elements without gradient are ours.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = GIAdamW([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    >>> weight.grad = torch.tensor([3.0, -4.0])
    >>> optimizer.step()
    >>> weight.detach()  # lr sqrt(1 - beta2), where AdamW's first step is lr
    tensor([-0.0100,  0.0100])
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-3, **settings: Any) -> None:
        super().__init__(params, lr, **settings)
        # A gradient scaler would hand scaled gradients to a fused step; without this it unscales them before.
        self._step_supports_amp_scaling = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; the constructor uses it too. A group that joins later starts at its first update's gradients."""
        param_group.setdefault("observed_batches", 0)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("observed_batches", 0)

    @torch.no_grad()
    def observe_gradients(self) -> None:
        """Add the gradients in `.grad` to the mean at which the second moment starts.

        Call it once a batch, after the backward pass and before the first update; then the gradients may be dropped.
        Under DDP and fully_shard they are already averages over the ranks.

        Raises:
            RunStopped: the optimizer has made an update, or has loaded a state.
        """
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not group["observed_batches"] and any(self.state.get(parameter) for parameter in parameters):
                raise RunStopped(
                    "GIAdamW already has a second moment; call observe_gradients before the first step and before "
                    "loading a state."
                )
            super()._init_group(group, [], [], [], [], [], [])
            group["observed_batches"] += 1
            for parameter in parameters:
                second_moment = self.state[parameter]["exp_avg_sq"]
                second_moment.lerp_(parameter.grad.square(), 1 / group["observed_batches"])

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        """As torch's, which makes the state of parameters that have none; here it gets its first value."""
        unseen = [p for p in group["params"] if p.grad is not None and not self.state.get(p)]
        has_complex: bool = super()._init_group(group, *lists)
        for parameter in unseen:
            self.state[parameter]["exp_avg_sq"].copy_(parameter.grad.square())
        if group["observed_batches"]:
            unseen = [parameter for parameter in group["params"] if self.state.get(parameter)]
            group["observed_batches"] = 0
        for parameter in unseen:
            _fill_zeros(self.state[parameter]["exp_avg_sq"])
        return has_complex


def _fill_zeros(second_moment: Tensor) -> None:
    """Give elements without a gradient the mean of the tensor's other elements."""
    zero = second_moment == 0
    count = (~zero).sum()
    second_moment.add_(zero * (second_moment.sum() / count.clamp(min=1)))
