"""How sharp the loss is at the current weights, compared with the sharpness at which the optimizer gets unstable."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import SGD, Adam, AdamW, Optimizer

from hfwarmup.errors import UserError
from hfwarmup.measuring.direction import parameters_of, trained_parameters
from hfwarmup.measuring.preserving_state import preserving_state
from hfwarmup.measuring.sharpness import Sharpness, sharpness
from hfwarmup.measuring.thresholds import adam_preconditioner, stability_threshold
from hfwarmup.trainer.first_batches import loss_of
from hfwarmup.trainer.probes.base import Moment, Probe
from hfwarmup.trainer.probes.probe_batch import probe_batch, reason_of
from hfwarmup.trainer.running import is_rank_zero

logger = logging.getLogger(__name__)


class SharpnessProbe(Probe):
    """The sharpness on the probe batch before this update: lambda_max of the Hessian, preconditioned if it is Adam's.

    * `sharpness`: lambda_max;
    * `sharpness_ratio`: lambda_max over the stability threshold at this update's learning rate. Above 1 a quadratic
      loss would grow; at a learning rate of 0 the ratio is 0.

    Each measurement starts from the eigenvector of the one before. The first takes 10 to 30 products with the Hessian
    and later ones a few, and as many vectors of the size of the weights in memory. So it is measured only on request.
    If it cannot be measured, one warning says why.
    """

    def __init__(self) -> None:
        self._batch: dict[str, Any] | None = None
        self._eigenvector: Tensor | None = None
        self._values: dict[str, float] = {}

    def begin(self, moment: Moment) -> None:
        check_optimizer(moment.optimizer)
        self._values = {}
        try:
            self._batch = probe_batch(moment.dataloader, moment.args)
        except Exception as error:  # a user's data set or collator may raise anything and train all the same
            self._give_up(reason_of(error))

    def before_update(self, moment: Moment) -> None:
        if self._batch is None:
            return
        try:
            found = self._measure(moment, self._batch)
        except ValueError as error:
            self._give_up(str(error))
            return
        moves = any(float(group["lr"]) > 0.0 for group in moment.optimizer.param_groups)
        ratio = found.value / stability_threshold(moment.optimizer) if moves else 0.0
        self._values = {"sharpness": found.value, "sharpness_ratio": ratio}

    def values(self, moment: Moment) -> dict[str, float]:
        return self._values

    def _measure(self, moment: Moment, batch: dict[str, Any]) -> Sharpness:
        """The sharpness at these weights; ValueError if the loss cannot be computed or differentiated."""
        preconditioner = _preconditioner(moment.optimizer)
        # The fused attention kernels have no double backward, and autocast's rounding drowns small differences.
        with preserving_state(moment.model), sdpa_kernel(SDPBackend.MATH):
            found = sharpness(
                lambda: loss_of(moment.model, batch),
                trained_parameters(moment.optimizer),
                preconditioner=preconditioner,
                start=self._eigenvector,
                tolerance=1e-3 if self._eigenvector is None else 0.01,
            )
        if self._eigenvector is None and is_rank_zero():
            logger.info("sharpness by %s, %d products the first time", found.method, found.products)
        self._eigenvector = found.vector
        return found

    def _give_up(self, reason: str) -> None:
        """Warn, and measure nothing more in this run."""
        self._batch, self._values = None, {}
        if is_rank_zero():
            logger.warning("the sharpness is not measured: %s", reason)


def check_optimizer(optimizer: Optimizer) -> None:
    """Raise UserError for an optimizer whose stability threshold is not known."""
    if not isinstance(optimizer, (SGD, Adam, AdamW)):
        raise UserError(
            f"{type(optimizer).__name__} has no known stability threshold, so its sharpness says nothing; "
            "take SGD, Adam or AdamW, or watch_warmup without sharpness=True."
        )


def _preconditioner(optimizer: Optimizer) -> list[Tensor] | None:
    """Adam's preconditioner for its trained parameters; None for SGD."""
    if not isinstance(optimizer, (Adam, AdamW)):
        return None
    parameters = parameters_of(optimizer)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    found = zip(parameters, adam_preconditioner(optimizer, gradients), strict=True)
    return [preconditioner for parameter, preconditioner in found if parameter.requires_grad]
