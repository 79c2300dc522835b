"""The weight decay that goes with a schedule: torch's own follows the learning rate, other modes do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from hfwarmup.errors import UserError
from hfwarmup.schedules.curve import Levels
from hfwarmup.schedules.spec import ScheduleSpec


def decay_coefficient(mode: str, weight_decay: float, *, lr: float, peak_lr: float) -> float:
    """The `weight_decay` to give torch's AdamW, which shrinks the weights by lr * weight_decay an update.

    With lambda = `weight_decay`, eta = `peak_lr` and s = lr / eta the schedule, an update shrinks the weights by

    * coupled: eta s lambda, torch's own; the decay warms up with the learning rate;
    * independent: s lambda, whatever the peak (Wortsman et al. 2023, arXiv:2309.14322, section 3.2.2);
    * proportional: eta s^2 lambda (Defazio 2025, arXiv:2506.02285);
    * constant: lambda, whatever the peak and the schedule.

    Raises UserError under constant when `lr` is 0.

    >>> decay_coefficient("independent", 0.1, lr=5e-4, peak_lr=1e-3)
    100.0
    >>> decay_coefficient("proportional", 0.1, lr=5e-4, peak_lr=1e-3)
    0.05
    """
    if mode == "independent":
        return weight_decay / peak_lr
    if mode == "proportional":
        return weight_decay * lr / peak_lr
    if mode == "constant":
        if lr == 0.0:
            raise UserError(
                "weight_decay='constant' divides by the learning rate, which reaches 0; set initial_lr and final_lr."
            )
        return weight_decay / lr
    return weight_decay


def check_weight_decay(spec: ScheduleSpec, weight_decays: Sequence[float]) -> None:
    """Raise UserError at the start of a run in which weight_decay='constant' would later divide by 0."""
    mode = spec.resolved.weight_decay
    for step in (0, spec.total_steps or 0) if mode == "constant" else ():
        for weight_decay, lr in zip(weight_decays, spec.learning_rates(step), strict=True):
            if weight_decay:
                decay_coefficient(mode, weight_decay, lr=lr, peak_lr=lr)


class ScaledWeightDecay:
    """Writes the `weight_decay` of an optimizer's groups under every mode but `coupled`.

    While a mode scales it, a group keeps its own coefficient as `initial_weight_decay`; it comes back when the mode is
    `coupled` again.
    """

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        self.initial = [float(group.get("initial_weight_decay", group.get("weight_decay", 0.0))) for group in groups]
        self.mode = "coupled"

    def set_mode(self, groups: Sequence[dict[str, Any]], mode: str) -> None:
        """Take over the mode of a schedule."""
        self.mode = mode
        for group, weight_decay in zip(groups, self.initial, strict=False):
            if mode == "coupled" and "initial_weight_decay" in group:
                group["weight_decay"] = group.pop("initial_weight_decay")
            elif mode != "coupled" and "weight_decay" in group:
                group["initial_weight_decay"] = weight_decay

    def write(self, optimizer: Optimizer, learning_rates: Sequence[float], levels: Sequence[Levels]) -> None:
        """Write the coefficients that go with these learning rates; under `coupled` there is nothing to write."""
        for group, weight_decay, lr, level in zip(
            optimizer.param_groups, self.initial, learning_rates, levels, strict=True
        ):
            if weight_decay and (level.peak or self.mode == "constant"):
                group["weight_decay"] = decay_coefficient(self.mode, weight_decay, lr=float(lr), peak_lr=level.peak)
