"""How sharp the loss is where a Trainer stands, relative to what its optimizer can stand."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import SGD, Adam, AdamW, Optimizer

from hfwarmup.errors import UserError
from hfwarmup.measuring.direction import parameters_of, trained_parameters
from hfwarmup.measuring.preserving_state import preserving_state
from hfwarmup.measuring.sharpness import sharpness
from hfwarmup.measuring.thresholds import adam_preconditioner, stability_threshold
from hfwarmup.trainer.first_batches import loss_of
from hfwarmup.trainer.running import is_rank_zero

logger = logging.getLogger(__name__)


class SharpnessProbe:
    """lambda_max on one batch, of the Hessian for SGD and of the preconditioned Hessian for Adam.

    Each measurement starts from the eigenvector of the one before. It takes 10 to 30 products with the Hessian the
    first time and a few later on, and memory for as many vectors of the size of the weights.
    """

    def __init__(self) -> None:
        self._eigenvector: Tensor | None = None
        self._refused = False

    @staticmethod
    def check(optimizer: Optimizer) -> None:
        """Before the first update: ValueError for an optimizer whose stability threshold is not known."""
        if not isinstance(optimizer, (SGD, Adam, AdamW)):
            raise UserError(
                f"{type(optimizer).__name__} has no known stability threshold, so its sharpness says nothing; "
                "take SGD, Adam or AdamW, or watch_warmup without sharpness=True."
            )

    def measure(self, model: nn.Module, optimizer: Optimizer, batch: Mapping[str, Any]) -> dict[str, float]:
        """`sharpness`, and `sharpness_ratio`: over the threshold at the learning rate of the coming update.

        Above a ratio of 1 a quadratic loss would climb; at a learning rate of 0 it is 0. Call it before the update,
        with the gradients present. Where it cannot be measured a warning says why, once, and nothing is returned.
        """
        if self._refused:
            return {}
        preconditioner = _preconditioner(optimizer)
        # The fused attention kernels have no double backward, and differences are lost in the rounding of autocast.
        try:
            with preserving_state(model), sdpa_kernel(SDPBackend.MATH):
                found = sharpness(
                    lambda: loss_of(model, batch),
                    trained_parameters(optimizer),
                    preconditioner=preconditioner,
                    start=self._eigenvector,
                    tolerance=1e-3 if self._eigenvector is None else 0.01,
                )
        except ValueError as error:
            self.refuse(str(error))
            return {}
        if self._eigenvector is None and is_rank_zero():
            logger.info("sharpness by %s, %d products the first time", found.method, found.products)
        self._eigenvector = found.vector
        moves = any(float(group["lr"]) > 0.0 for group in optimizer.param_groups)
        ratio = found.value / stability_threshold(optimizer) if moves else 0.0
        return {"sharpness": found.value, "sharpness_ratio": ratio}

    def refuse(self, reason: str) -> None:
        """Measure nothing from here on, and say so."""
        self._refused = True
        if is_rank_zero():
            logger.warning("no sharpness is measured: %s", reason)


def _preconditioner(optimizer: Optimizer) -> list[Tensor] | None:
    """That of an Adam, for its trained parameters."""
    if not isinstance(optimizer, (Adam, AdamW)):
        return None
    parameters = parameters_of(optimizer)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    found = zip(parameters, adam_preconditioner(optimizer, gradients), strict=True)
    return [preconditioner for parameter, preconditioner in found if parameter.requires_grad]
