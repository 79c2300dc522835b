"""The gradients of an update's micro-batches, seen in the backward passes before anything adds or averages them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.hooks import RemovableHandle

from hfwarmup.measuring.products import mean_over_ranks


class MicroBatchGradients:
    """The mean squared norm of the micro-batches' gradients of one update, over accumulation and ranks.

    A hook on each parameter gets the gradient of one backward pass, before it is added to `.grad` and before the ranks
    average it. The gradients of sharded parameters never pass there, so nothing is measured of them.

    >>> weight = nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> gradients = MicroBatchGradients()
    >>> gradients.watch([weight])
    >>> for sample in torch.tensor([[3.0, 4.0], [0.0, 1.0]]):  # accumulation of two, so each loss is halved
    ...     (weight @ sample / 2).backward()
    >>> gradients.mean_squared_norm(accumulation=2)  # of (3, 4) and (0, 1)
    13.0
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._squares: list[Tensor] = []

    @property
    def watching(self) -> bool:
        """Between `watch` and `mean_squared_norm`."""
        return bool(self._handles)

    def watch(self, parameters: Iterable[nn.Parameter]) -> None:
        """Before the first backward pass of an update."""
        self.forget()
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not any(isinstance(parameter, DTensor) for parameter in trained):
            self._handles = [parameter.register_hook(self._add) for parameter in trained]

    def mean_squared_norm(self, *, accumulation: int) -> float:
        """After the last backward pass, of `accumulation` whose losses were each divided by it; every rank asks."""
        total = torch.stack(self._squares).sum()
        self.forget()
        return mean_over_ranks(total).item() * accumulation

    def forget(self) -> None:
        """Remove the hooks and what they saw."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._squares = [], []

    def _add(self, gradient: Tensor) -> None:
        self._squares.append(gradient.detach().float().square().sum())
