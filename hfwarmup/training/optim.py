"""What the optimizer does beside following the learning rate."""

from __future__ import annotations

from collections.abc import Sequence

from hfwarmup.schedules.spec import ScheduleSpec


def decay_coefficient(mode: str, weight_decay: float, *, lr: float, peak_lr: float) -> float:
    """The `weight_decay` to give torch's AdamW, which shrinks the weights by lr * weight_decay an update.

    With lambda = `weight_decay`, eta = `peak_lr` and s = lr / eta the schedule, an update shrinks the weights by

    * coupled: eta s lambda, torch's own; the decay warms up with the learning rate;
    * independent: s lambda, which does not see the peak (Wortsman et al. 2023, arXiv:2309.14322, section 3.2.2);
    * proportional: eta s^2 lambda (Defazio 2025, arXiv:2506.02285);
    * constant: lambda, which sees neither.

    >>> decay_coefficient("independent", 0.1, lr=5e-4, peak_lr=1e-3)
    100.0
    >>> decay_coefficient("proportional", 0.1, lr=5e-4, peak_lr=1e-3)
    0.05
    """
    if mode == "independent":
        return weight_decay / peak_lr
    if mode == "proportional":
        return weight_decay * lr / peak_lr
    return weight_decay / lr if mode == "constant" else weight_decay


def check_weight_decay(spec: ScheduleSpec, weight_decays: Sequence[float]) -> None:
    """Raise ValueError where weight_decay='constant' would divide by a learning rate of 0."""
    options = spec.resolved
    if options.weight_decay != "constant" or not any(weight_decays):
        return
    lowest = min(spec.learning_rates(step)[0] for step in (0, spec.total_steps or 0))
    if lowest == 0.0:
        raise ValueError(
            "weight_decay='constant' divides by the learning rate, which reaches 0; set initial_lr and final_lr."
        )
