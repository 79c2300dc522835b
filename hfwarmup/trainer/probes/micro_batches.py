"""The gradients of an update's micro-batches, read in each backward pass before they are added or averaged."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.hooks import RemovableHandle

from hfwarmup.measuring.products import mean_over_ranks


class MicroBatchGradients:
    """The mean squared norm of the micro-batches' gradients of one update, over accumulation and ranks.

    A hook on each parameter gets the gradient of one backward pass, before it is added to `.grad` and before the ranks
    average it. The gradients of sharded parameters never reach such a hook, so they are not measured.

    Where the model divides its loss by the number of labels in the whole update (`num_items_in_batch`), the update's
    gradient is sum w_i g_i, and w_i is the share of the labels that micro-batch i has; a hook on the model counts them.
    The mean is then sum |w_i g_i|^2 / sum w_i^2; with equal shares it is the mean of |g_i|^2.

    >>> model = nn.Linear(2, 1, bias=False).requires_grad_(True)
    >>> gradients = MicroBatchGradients()
    >>> gradients.watch(model)
    >>> for sample in torch.tensor([[3.0, 4.0], [0.0, 1.0]]):  # accumulation of two, so each loss is halved
    ...     (model(sample) / 2).backward()
    >>> gradients.squared_norm_and_share(accumulation=2)  # of (3, 4) and (0, 1)
    (13.0, 0.5)
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._squares: list[Tensor] = []
        self._labels: list[Tensor] = []

    def watch(self, model: nn.Module) -> None:
        """Put the hooks in place; call it before the first forward pass of an update."""
        self.forget()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not any(isinstance(parameter, DTensor) for parameter in trained):
            hooks = [parameter.register_hook(self._add) for parameter in trained]
            self._handles = [*hooks, model.register_forward_pre_hook(self._count, with_kwargs=True)]

    def squared_norm_and_share(self, *, accumulation: int) -> tuple[float, float]:
        """The mean, and a micro-batch's share of this rank's samples: 1 / accumulation if all have equally many labels.

        Call it on every rank, after the last of `accumulation` backward passes. Both are NaN where no label counts, and
        where `watch` was not called or found sharded parameters.
        """
        if not self._handles:
            return math.nan, math.nan
        total = torch.stack(self._squares).sum()
        labels = torch.stack(self._labels).to(total) if self._labels else torch.ones(accumulation).to(total)
        self.forget()
        square, count, count_square = mean_over_ranks(
            torch.stack([total, labels.sum(), labels.square().sum()])
        ).tolist()
        if not count:
            return math.nan, math.nan
        return square * count**2 / count_square, count_square / count**2

    def forget(self) -> None:
        """Remove the hooks and what they saw."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._squares, self._labels = [], [], []

    def _add(self, gradient: Tensor) -> None:
        self._squares.append(gradient.detach().float().square().sum())

    def _count(self, model: nn.Module, _: Any, inputs: dict[str, Any]) -> None:
        labels = inputs.get("shift_labels", inputs.get("labels"))
        if inputs.get("num_items_in_batch") is None or not isinstance(labels, Tensor):
            return
        if "shift_labels" not in inputs and getattr(model, "loss_type", None) == "ForCausalLM":
            labels = labels[..., 1:]  # the first one is no target
        self._labels.append((labels != -100).sum())
