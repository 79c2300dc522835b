"""Gradient-initialised Adam: torch's AdamW, whose second moment begins at the squared gradient and not at 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from hfwarmup.errors import RunStopped


class GIAdamW(AdamW):
    """AdamW with v_0 = mean of g^2 over the batches seen before the first update, and both bias corrections kept.

    v_t = beta2 v_{t-1} + (1 - beta2) g_t^2 is then of the size of g^2 from the start, and the correction 1 / (1 -
    beta2^t), kept on purpose, makes the first steps small: with eps = 0 it equals Adam without the correction and with
    learning rate eta sqrt(1 - beta2^t), a warmup of its own. Its length is beta2's: from 0.03 to 90% in 1660 updates at
    beta2 = 0.999, from 0.22 to 90% in 33 updates at 0.95, so the smaller beta2, the less it does.

    Show it the gradients of some batches before the first update with `observe_gradients`; if none were shown, the
    first update's own gradients serve. One batch is what the paper takes; of a mean over several fewer elements are
    small by chance, and those are the ones that stay unprotected. Elements without any gradient, such as the embeddings
    of tokens that were not in the batches, begin at the mean of their tensor's other elements.

    The update is torch's, so are the arguments and the state, whichever of `foreach` and `fused` runs it, on sharded
    parameters too. A state that is loaded is not initialised again; that of an AdamW can be loaded.

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
        """As torch's, of which the constructor makes use too; a group that joins later begins at its first update."""
        param_group.setdefault("observed_batches", 0)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("observed_batches", 0)

    @torch.no_grad()
    def observe_gradients(self) -> None:
        """Take the gradients that are in `.grad` into the mean that the second moment begins at.

        Call it once a batch, after the backward pass, before the first update; the gradients may then be dropped. Under
        DDP and fully_shard they are averages over the ranks already.

        Raises:
            RuntimeError: the optimizer has made an update, or has loaded a state.
        """
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not group["observed_batches"] and any(self.state.get(parameter) for parameter in parameters):
                raise RunStopped(
                    "GIAdamW has a second moment already; call observe_gradients before the first step, "
                    "and not after loading a state."
                )
            super()._init_group(group, [], [], [], [], [], [])
            group["observed_batches"] += 1
            for parameter in parameters:
                second_moment = self.state[parameter]["exp_avg_sq"]
                second_moment.lerp_(parameter.grad.square(), 1 / group["observed_batches"])

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        """Torch's own, which makes the state of parameters that have none; theirs is filled here."""
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
    """Elements that have seen no gradient get the mean of those of their tensor that have."""
    zero = second_moment == 0
    count = (~zero).sum()
    second_moment.add_(zero * (second_moment.sum() / count.clamp(min=1)))
