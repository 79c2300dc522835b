"""The sharpness of a loss: the largest eigenvalue of its Hessian, as it is and as Adam's preconditioner sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from hfwarmup.measuring.products import HessianProduct, Method, flatten, gradient, is_sharded, total_over_shards


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """The largest eigenvalue, and what helps to find it again."""

    value: float
    """lambda_max; in units of 1 / learning rate"""
    vector: Tensor
    """its eigenvector, flat and of unit length: the `start` of the next measurement"""
    products: int
    """number of products with the Hessian"""
    error: float
    """estimate of |value - lambda_max| / |value|"""
    method: Method
    """how the products were made"""


def sharpness(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    *,
    preconditioner: Sequence[Tensor] | None = None,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    max_products: int = 60,
    method: Method = "auto",
) -> Sharpness:
    """lambda_max(H), or lambda_max(P^-1/2 H P^-1/2), which is that of P^-1 H, with the diagonal P = `preconditioner`.

    Works on replicated parameters (each rank its batch, the mean is taken) and on those of `fully_shard`; every rank
    must call it. Needs memory for `products` vectors as large as the weights.

    Args:
        loss: the loss of one batch, as for `HessianProduct`.
        parameters: what to differentiate by.
        preconditioner: P, a positive tensor a parameter, see `adam_preconditioner`; None: the Hessian alone.
        start: `vector` of an earlier measurement, which needs a few products instead of 10 to 30. If another
            eigenvector overtakes it, that shows late, so measure from None now and then. None: a random vector.
        tolerance: relative error at which it stops; from a random vector it must hold for three products in a row.
        max_products: the most products.
        method: how the products are made, as for `HessianProduct`.

    >>> x = torch.nn.Parameter(torch.ones(3))
    >>> found = sharpness(lambda: (torch.tensor([1.0, 2.0, 7.0]) * x**2).sum() / 2, [x], tolerance=1e-6)
    >>> round(found.value, 4), found.products
    (7.0, 3)
    """
    product = HessianProduct(loss, parameters, method=method)
    scale = None if preconditioner is None else flatten(preconditioner).rsqrt()
    value, vector, error = lanczos(
        product if scale is None else lambda vector: scale * product(scale * vector),
        _random_like(parameters) if start is None else start,
        tolerance=tolerance,
        max_products=max_products,
        in_a_row=3 if start is None else 1,
        total=lambda sums: total_over_shards(sums, parameters),
    )
    return Sharpness(value=value, vector=vector, products=product.count, error=error, method=product.method)


def directional_sharpness(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor], direction: Sequence[Tensor], *, method: Method = "auto"
) -> float:
    """d'H d / d'g for a step d and the gradient g: to second order the loss rises along d above eta = 2 / this.

    It takes one product and one gradient. It is at most the sharpness of the preconditioned Hessian that gives the step
    d (Kalra et al. 2026, arXiv:2601.16979). It is NaN where d is orthogonal to g.

    >>> x = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> loss = lambda: (torch.tensor([2.0, 4.0]) * x**2).sum() / 2
    >>> round(directional_sharpness(loss, [x], [torch.tensor([2.0, 4.0])]), 4)
    3.6
    """
    step = flatten(direction)
    curved = step @ HessianProduct(loss, parameters, method=method)(step)
    curvature, slope = total_over_shards(
        torch.stack([curved, step @ flatten(gradient(loss, parameters))]), parameters
    ).tolist()
    return curvature / slope if slope else float("nan")


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    tolerance: float = 1e-3,
    max_products: int = 60,
    in_a_row: int = 3,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> tuple[float, Tensor, float]:
    """The largest eigenvalue of a symmetric matrix, its eigenvector and the relative error of the eigenvalue.

    Lanczos with full reorthogonalisation. With the largest Ritz value theta, its residual r and the gap to the next
    Ritz value, some eigenvalue is within r of theta and, once it has settled, within r^2 / gap (Parlett 1980, theorem
    11.7.1). It is the largest one unless `start` held almost nothing of that one's eigenvector, which then shows a few
    products later: of 250 random starts on a small Llama model, 3 were wrong at the first value within the tolerance, 1
    at the second in a row and none at the third (benchmarks/measuring.py --starts 250).

    Args:
        product: vector -> matrix times vector.
        start: any vector; one near the eigenvector saves most products.
        tolerance: relative error at which it stops.
        max_products: the most products.
        in_a_row: how many products in a row must be within the tolerance.
        total: sums over this rank's elements -> sums over all.

    >>> matrix = torch.diag(torch.tensor([1.0, -9.0, 3.0]))
    >>> value, vector, error = lanczos(matrix.mv, torch.ones(3))
    >>> round(value, 4), round(abs(vector[2].item()), 4)
    (3.0, 1.0)
    """
    dimension = int(total(torch.tensor([start.numel()], device=start.device)).item())
    basis = [start / total((start @ start).reshape(1)).sqrt()]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    within = 0
    while True:
        image = product(basis[-1])
        for repeat in range(2):  # twice is enough (Kahan, in Parlett 1980, section 6.9)
            overlaps = total(torch.stack([vector @ image for vector in basis]))
            if repeat == 0:
                diagonal.append(overlaps[-1].item())
            for vector, overlap in zip(basis, overlaps, strict=True):
                image = image - overlap * vector
        length = total((image @ image).reshape(1)).sqrt().item()
        value, weights, error = _largest_ritz_pair(diagonal, off_diagonal, length)
        scale = max(abs(value), torch.finfo(start.dtype).tiny)
        within = within + 1 if len(basis) > 1 and error <= tolerance * scale else 0
        is_whole = length <= torch.finfo(start.dtype).eps * scale or len(basis) == dimension
        if within == in_a_row or is_whole or len(basis) == max_products:
            vector = torch.stack([weight * vector for weight, vector in zip(weights, basis, strict=True)]).sum(0)
            return value, vector, error / scale
        off_diagonal.append(length)
        basis.append(image / length)


def _largest_ritz_pair(
    diagonal: Sequence[float], off_diagonal: Sequence[float], length: float
) -> tuple[float, list[float], float]:
    """Largest eigenvalue of the tridiagonal matrix, its eigenvector, and the error of the eigenvalue."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if off_diagonal:
        side = torch.tensor(off_diagonal, dtype=torch.float64)
        matrix += torch.diag(side, 1) + torch.diag(side, -1)
    values, vectors = torch.linalg.eigh(matrix)
    residual = length * vectors[-1, -1].abs().item()
    # Of two Ritz values the second is a poor guess, so the gap counts from the third product on.
    gap = (values[-1] - values[-2]).item() if len(diagonal) > 2 else 0.0
    error = min(residual, residual**2 / gap) if gap > 0.0 else residual
    return values[-1].item(), vectors[:, -1].tolist(), error


def _random_like(parameters: Sequence[Tensor]) -> Tensor:
    """A vector of random signs and sizes that is the same on every rank, or each rank's part of one."""
    shape = flatten(parameters)
    seed = dist.get_rank() if is_sharded(parameters) else 0
    drawn = torch.randn(shape.numel(), generator=torch.Generator().manual_seed(seed), dtype=shape.dtype)
    return drawn.to(shape.device)
