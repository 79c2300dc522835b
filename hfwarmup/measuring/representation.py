"""What an update does to the weights and to the model's representations. No function changes a tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_rank(hidden: Tensor) -> float:
    """How many directions the rows of `hidden` use: exp(-sum p log p), p = singular values / their sum.

    Roy & Vetterli 2007, definition 2, of the rows less their mean; RankMe (Garrido et al. 2023, arXiv:2210.02885) uses
    it on representations. Between 1 and min(rows, width); NaN where a value is not finite, 0 where all rows agree.

    Args:
        hidden: (rows, width), one row a token.

    >>> rows = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    >>> round(effective_rank(rows), 6)  # two directions of equal size
    2.0
    """
    rows = (hidden.cpu() if hidden.device.type == "mps" else hidden).double()  # MPS has no float64
    centred = rows - rows.mean(dim=0)
    if not torch.isfinite(centred).all():
        return math.nan
    # The small Gram matrix has the squared singular values, many times faster than the tall matrix's own.
    gram = centred.T @ centred if centred.shape[0] >= centred.shape[1] else centred @ centred.T
    singular_values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = singular_values.sum()
    if total == 0:
        return 0.0
    return math.exp(torch.special.entr(singular_values / total).sum().item())


def relative_change(before: Tensor, after: Tensor) -> float:
    """||after - before|| / ||before||, of a matrix over an update or of a representation; inf from 0.

    >>> relative_change(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]))
    0.2
    """
    change, size = torch.linalg.vector_norm(after - before).item(), torch.linalg.vector_norm(before).item()
    return change / size if size else math.inf if change else 0.0


def angle(before: Tensor, after: Tensor) -> float:
    """The angle in radians by which an update turns a matrix, in [0, pi]; 0 if one of the two matrices is 0.

    Kosson et al. 2024 (arXiv:2410.23922) find that it grows too large without a warmup. With u, w of unit norm it is
    2 atan2(||u - w||, ||u + w||), which is exact for small angles; acos is not.

    >>> round(angle(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) / math.pi, 6)
    0.25
    """
    norms = [torch.linalg.vector_norm(tensor).item() for tensor in (before, after)]
    if not all(norms):
        return 0.0
    first, second = before / norms[0], after / norms[1]
    apart, together = (torch.linalg.vector_norm(tensor).item() for tensor in (first - second, first + second))
    return 2 * math.atan2(apart, together)
