"""Products of the Hessian with a vector, by double backward or differences of gradients; on whole or sharded weights.

Vectors are flat: they hold the elements of all parameters in order; of sharded parameters, the shards of this rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor, Shard

from hfwarmup.errors import UserError, check_choice

Method = Literal["auto", "double backward", "finite differences"]
_CHANGE = 3e-3
"""Relative change of the gradient that a difference aims at."""


class HessianProduct:
    """v -> H v for the Hessian of a loss at the current weights; with several ranks, the mean over them.

    Double backward is exact. It keeps the graph of one gradient, and each product is one more backward pass through it.
    Finite differences, (g(theta + e v) - g(theta - e v)) / 2e, take two gradients a product and work with every kernel;
    fused attention (pytorch#116350) and sharded parameters have no double backward. Their step e is chosen so that the
    gradient changes by 0.3%, but from eps^(2/3) to eps^(1/3) over |v|, with eps the precision of the weights: after
    some training a gradient can turn within 1e-3 along the sharpest direction. They are accurate to about 1%. `auto`
    tries double backward first, then finite differences.

    Under autocast, rounding destroys finite differences, and double backward is as good as the rounded gradient.

    Every rank must call it, each with its own batch. Finite differences move the weights and restore them to the last
    bit; `.grad` stays as it is.

    Args:
        loss: the loss of one batch, a scalar with its graph; it must depend on the weights alone (dropout off).
        parameters: what to differentiate by.
        method: double backward, finite differences, or auto.

    Raises:
        UserError: an unknown method; or finite differences where the weights, or the loss's operations (as under
            autocast), have less than single precision, so that rounding would destroy the difference.

    >>> x = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    >>> product = HessianProduct(lambda: (torch.tensor([1.0, 2.0, 7.0]) * x**2).sum() / 2, [x])
    >>> product(torch.tensor([1.0, 0.0, 1.0])), product.method
    (tensor([1., 0., 7.]), 'double backward')
    """

    def __init__(self, loss: Callable[[], Tensor], parameters: Sequence[Tensor], *, method: Method = "auto") -> None:
        check_choice("method", method, get_args(Method))
        self._loss, self._parameters = loss, list(parameters)
        self.method: Method = "finite differences" if method == "auto" and is_sharded(parameters) else method
        self._gradient: list[Tensor] = []
        self._step = math.inf
        self.count = 0
        """number of products so far"""

    def __call__(self, vector: Tensor) -> Tensor:
        self.count += 1
        if self.method != "finite differences":
            try:
                product = self._by_double_backward(vector)
            except RuntimeError as error:
                if self.method != "auto" or "derivative for" not in str(error):
                    raise
                self._gradient = []
            else:
                self.method = "double backward"
                return product
        self.method = "finite differences"
        return self._by_finite_differences(vector)

    def _by_double_backward(self, vector: Tensor) -> Tensor:
        if not self._gradient:
            self._gradient = list(
                torch.autograd.grad(self._loss(), self._parameters, create_graph=True, materialize_grads=True)
            )
        chunks = vector.split([parameter.numel() for parameter in self._parameters])
        rows = zip(self._gradient, chunks, strict=True)
        pairs = [(gradient, chunk.view_as(gradient)) for gradient, chunk in rows if gradient.requires_grad]
        if not pairs:
            return torch.zeros_like(vector)
        outputs, weights = zip(*pairs, strict=True)
        products = torch.autograd.grad(
            outputs, self._parameters, grad_outputs=weights, retain_graph=True, materialize_grads=True
        )
        return mean_over_ranks(flatten(products))

    @torch.no_grad()
    def _by_finite_differences(self, vector: Tensor) -> Tensor:
        precision = torch.finfo(vector.dtype).eps
        if precision > torch.finfo(torch.float32).eps:
            raise UserError(f"finite differences are lost in {vector.dtype} weights; measure in float32.")
        norm = total_over_shards((vector @ vector).reshape(1), self._parameters).sqrt().item()
        if norm == 0.0:
            return torch.zeros_like(vector)
        smallest, largest = precision ** (2 / 3), precision ** (1 / 3)
        weights = flatten(self._parameters)
        try:
            while True:
                self._step = min(max(self._step, smallest), largest)
                difference, change = self._difference(weights, self._step / norm * vector)
                product, step = difference / (2 * self._step / norm), self._step
                self._step *= _CHANGE / change if change > 0.0 else math.inf
                if change <= 2 * _CHANGE or step == smallest:
                    return product
        finally:
            self._write(weights)

    def _difference(self, weights: Tensor, step: Tensor) -> tuple[Tensor, float]:
        """g(theta + step) - g(theta - step), and its norm relative to that of the sum."""
        self._write(weights + step)
        with _single_precision():
            ahead = flatten(gradient(self._loss, self._parameters))
        self._write(weights - step)
        behind = flatten(gradient(self._loss, self._parameters))
        difference, both = ahead - behind, ahead + behind
        squares = total_over_shards(torch.stack([difference @ difference, both @ both]), self._parameters)
        return difference, math.sqrt(squares[0] / squares[1]) if squares[1] > 0.0 else 0.0

    def _write(self, weights: Tensor) -> None:
        chunks = weights.split([local_part(parameter).numel() for parameter in self._parameters])
        for parameter, chunk in zip(self._parameters, chunks, strict=True):
            local_part(parameter).copy_(chunk.view_as(local_part(parameter)))


def gradient(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of `loss()`, with several ranks the mean over them; `.grad` stays as it is.

    >>> x = torch.nn.Parameter(torch.tensor([3.0]))
    >>> gradient(lambda: (x**2).sum(), [x]), x.grad
    ([tensor([6.])], None)
    """
    if is_sharded(parameters):  # the sharded parameters are not in the graph: a backward pass reduces into their .grad
        return _gradient_of_shards(loss, parameters)
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(), list(parameters), materialize_grads=True)
    return [mean_over_ranks(each) for each in gradients]


@contextmanager
def _single_precision() -> Iterator[None]:
    """Raise UserError if a gradient uses tensors of less than single precision, as autocast makes them."""
    seen: set[torch.dtype] = set()

    def look(tensor: Tensor) -> Tensor:
        seen.add(tensor.dtype)
        return tensor

    with saved_tensors_hooks(look, lambda tensor: tensor):
        yield
    coarse = seen & {torch.bfloat16, torch.float16}
    if coarse:
        raise UserError(
            f"finite differences are lost in the rounding of {coarse.pop()}; measure without autocast, or attention "
            "by sdpa_kernel(SDPBackend.MATH), which has a double backward."
        )


def _gradient_of_shards(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    before = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        with torch.enable_grad():
            loss().backward()
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    finally:
        for parameter, grad in zip(parameters, before, strict=True):
            parameter.grad = grad
    return found


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """The elements of all tensors in one vector; of sharded ones those on this rank.

    >>> flatten([torch.ones(2, 2), torch.zeros(1)])
    tensor([1., 1., 1., 1., 0.])
    """
    return torch.cat([local_part(tensor.detach()).reshape(-1) for tensor in tensors])


def is_sharded(parameters: Sequence[Tensor]) -> bool:
    """Whether the parameters are shards, as `fully_shard` makes them; raises UserError if only some are.

    >>> is_sharded([torch.zeros(1)])
    False
    """
    layouts = {str(p.placements) if isinstance(p, DTensor) else "" for p in parameters}
    if len(layouts) > 1:
        raise UserError(f"parameters of {len(layouts)} layouts ({', '.join(layouts)}); shard all in the same way.")
    return layouts != {""}


def total_over_shards(sums: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Sums over this rank's elements -> sums over all elements; the same tensor where nothing is sharded.

    >>> total_over_shards(torch.ones(1), [torch.zeros(3)])
    tensor([1.])
    """
    first = next(iter(parameters))
    if isinstance(first, DTensor):
        for axis, placement in enumerate(first.placements):
            if isinstance(placement, Shard):
                dist.all_reduce(sums, group=first.device_mesh.get_group(axis))
    return sums


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean over all ranks, in place; the same tensor where there is one rank.

    >>> mean_over_ranks(torch.ones(1))
    tensor([1.])
    """
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensor


def local_part(tensor: Tensor) -> Tensor:
    """A sharded tensor's part on this rank; any other tensor as it is.

    >>> local_part(torch.ones(1))
    tensor([1.])
    """
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor
