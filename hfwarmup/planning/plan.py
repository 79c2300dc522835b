"""The plan of a run: peak learning rate and warmup length at the real global batch, each with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from hfwarmup.errors import UserError, check_choice
from hfwarmup.planning.durations import Duration, parse_duration, whole_steps
from hfwarmup.planning.ranges import ABOVE_ZERO, COUNT, LEARNING_RATE, SHARE
from hfwarmup.schedules.options import plain

LrScaling = Literal["linear", "sqrt", "none"]
WarmupScaling = Literal["linear", "constant_samples", "constant_steps", "sqrt"]

Rules = dict[str, tuple[Callable[[float], float], str]]

LR_RULES: Rules = {
    "linear": (lambda k: k, "eta k, Goyal et al. 2017"),
    "sqrt": (math.sqrt, "eta sqrt(k), Malladi et al. 2022"),
    "none": (lambda _: 1.0, "the peak stays"),
}
"""Name of a rule -> (factor of the peak learning rate as a function of k, what it says)."""

WARMUP_RULES: Rules = {
    "linear": (lambda k: k, "T_w k steps, the ramp climbs at the same rate a step"),
    "constant_samples": (lambda k: 1.0 / k, "T_w / k steps, the same samples, Goyal et al. 2017"),
    "constant_steps": (lambda _: 1.0, "the same steps, You et al. 2020"),
    "sqrt": (math.sqrt, "T_w sqrt(k) steps"),
}
"""Name of a rule -> (factor of the warmup's length in steps as a function of k, what it says)."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do, derived from a reference recipe and the real batch. A step is one optimizer update."""

    learning_rate: float
    """peak learning rate at the reference batch, as it was given"""
    warmup: Duration
    """the warmup's length at the reference batch, as it was given"""
    peak_lr: float
    """peak learning rate of an update"""
    warmup_steps: int
    """updates to the peak"""
    total_steps: int
    """updates of the run"""
    global_batch_size: int
    """samples an update, over all processes and accumulation"""
    per_device_batch_size: int | None
    """samples a micro-batch of one process; None: only the global batch was given"""
    num_processes: int
    """processes over all machines"""
    gradient_accumulation_steps: int
    """micro-batches an update"""
    reference_batch_size: int | None
    """samples an update at which the recipe was tuned; None: no scaling"""
    scale: float
    """k = global batch / reference batch"""
    warmup_samples: int
    """samples seen by the end of the warmup"""
    warmup_tokens: int | None
    """tokens seen by the end of the warmup, when the tokens of a sample are known"""
    warmup_fraction: float
    """share of the run"""
    length_from_beta2: bool = False
    """whether the schedule takes the warmup's length from Adam's beta2"""
    schedule: str = ""
    """the schedule's name, where the plan is one of a schedule"""
    first_lr: float | None = None
    """learning rate of the first update under the schedule, where it is known"""
    last_lr: float | None = None
    """learning rate of the last update under the schedule, where it is known"""
    reasons: tuple[str, ...]
    """one line for each derived number"""
    warnings: tuple[str, ...]
    """one line for each number that the plan had to change, and for each doubt about it"""

    def to_json(self) -> str:
        """The plan as a JSON object, for programs."""
        return json.dumps({**asdict(self), "warmup": str(self.warmup)}, indent=2, default=plain)

    def __str__(self) -> str:
        return "\n".join([*self.reasons, *(f"warning: {warning}" for warning in self.warnings)])


def plan_run(
    *,
    learning_rate: float,
    warmup: str | int | float | Duration,
    total_steps: int,
    global_batch_size: int | None = None,
    per_device_batch_size: int | None = None,
    num_processes: int = 1,
    gradient_accumulation_steps: int = 1,
    reference_batch_size: int | None = None,
    reference_total_steps: int | None = None,
    lr_scaling: LrScaling = "linear",
    warmup_scaling: WarmupScaling = "linear",
    max_warmup_fraction: float = 0.5,
    samples_per_epoch: int | None = None,
    tokens_per_sample: float | None = None,
) -> Plan:
    """The peak learning rate and the warmup length of a run, scaled from the batch at which they were tuned.

    With k = `global_batch_size` / `reference_batch_size`, the peak is `learning_rate` times k, sqrt(k) or 1, and the
    warmup is its length at the reference batch times k, 1/k, 1 or sqrt(k) optimizer updates, at most
    `max_warmup_fraction` of the run.

    Args:
        learning_rate: peak learning rate at the reference batch.
        warmup: duration of the warmup at the reference batch.
        total_steps: updates of this run.
        global_batch_size: samples an update; or give `per_device_batch_size`, `num_processes` and
            `gradient_accumulation_steps`, whose product it is.
        reference_batch_size: samples an update when the recipe was tuned; None: k = 1.
        reference_total_steps: updates of the run at the reference batch, which a warmup in % is a share of;
            None: `total_steps`.
        lr_scaling: linear (Goyal et al. 2017, arXiv:1706.02677, section 2.1), sqrt (Malladi et al. 2022,
            arXiv:2205.10287) or none.
        warmup_scaling: linear, constant_samples (Goyal, section 2.2), constant_steps (You et al. 2020,
            arXiv:1904.00962) or sqrt.
        max_warmup_fraction: cap on warmup_steps / total_steps, in (0, 1].
        samples_per_epoch: size of the training set, for warmups in epochs.
        tokens_per_sample: for warmups in tokens, and to report tokens.

    Raises:
        UserError: one line with what is wrong, its value and the remedy.

    >>> plan = plan_run(learning_rate=3e-4, warmup="2000", total_steps=100_000, global_batch_size=256,
    ...                 reference_batch_size=32)
    >>> plan.scale, plan.peak_lr, plan.warmup_steps
    (8.0, 0.0024, 16000)
    >>> print(plan)
    global batch 256, k = 8 times the reference batch of 32
    peak_lr 0.0003 -> 0.0024: lr_scaling=linear (eta k, Goyal et al. 2017)
    warmup_steps 2000 -> 16000: warmup_scaling=linear (T_w k steps, the ramp climbs at the same rate a step)
    warmup is 16000 of 100000 steps (16.0%), 4,096,000 samples
    """
    counts = {
        "total_steps": total_steps,
        "reference_total_steps": reference_total_steps,
        "samples_per_epoch": samples_per_epoch,
        "global_batch_size": global_batch_size,
        "per_device_batch_size": per_device_batch_size,
        "num_processes": num_processes,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "reference_batch_size": reference_batch_size,
    }
    for name, count in counts.items():
        COUNT.check(name, count)
    ABOVE_ZERO.check("tokens_per_sample", tokens_per_sample)
    LEARNING_RATE.check("learning_rate", learning_rate)
    SHARE.check("max_warmup_fraction", max_warmup_fraction)
    check_choice("lr_scaling", lr_scaling, LR_RULES)
    check_choice("warmup_scaling", warmup_scaling, WARMUP_RULES)
    batch_size, batch_reason = _global_batch(
        global_batch_size, per_device_batch_size, num_processes, gradient_accumulation_steps
    )
    scale, scale_reason = _batch_scale(batch_size, reference_batch_size)
    peak_lr, lr_reason = _scaled_lr(learning_rate, lr_scaling, scale)
    reference_batch = reference_batch_size or batch_size
    duration = parse_duration(warmup)
    sizes = {
        "steps_per_epoch": None if samples_per_epoch is None else samples_per_epoch / reference_batch,
        "batch_size": reference_batch,
        "tokens_per_sample": tokens_per_sample,
        "total_steps": reference_total_steps or total_steps,
    }
    scaled_steps, warmup_reason = _scaled_warmup(duration, duration.exact_steps(sizes), warmup_scaling, scale)
    warmup_steps, warnings = _capped_warmup(scaled_steps, max_warmup_fraction, total_steps)
    samples = warmup_steps * batch_size
    tokens = None if tokens_per_sample is None else round(samples * tokens_per_sample)
    length_reason = _warmup_length(warmup_steps, total_steps, samples, tokens)
    return Plan(
        learning_rate=learning_rate,
        warmup=duration,
        peak_lr=peak_lr,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
        global_batch_size=batch_size,
        per_device_batch_size=per_device_batch_size,
        num_processes=num_processes,
        gradient_accumulation_steps=gradient_accumulation_steps,
        reference_batch_size=reference_batch_size,
        scale=scale,
        warmup_samples=samples,
        warmup_tokens=tokens,
        warmup_fraction=warmup_steps / total_steps,
        reasons=(batch_reason + scale_reason, lr_reason, warmup_reason, length_reason),
        warnings=warnings,
    )


def _global_batch(
    global_batch_size: int | None, per_device: int | None, num_processes: int, accumulation: int
) -> tuple[int, str]:
    """Samples an update, and where they come from."""
    if per_device is None:
        if global_batch_size is None:
            raise UserError("no batch size: give global_batch_size, or per_device_batch_size and its factors.")
        if num_processes * accumulation > 1:
            raise UserError(
                f"global_batch_size={global_batch_size} has num_processes={num_processes} and "
                f"gradient_accumulation_steps={accumulation} in it already; drop them, or give per_device_batch_size."
            )
        return global_batch_size, f"global batch {global_batch_size}"
    product = per_device * num_processes * accumulation
    factors = f"{per_device} per device x {num_processes} processes x {accumulation} accumulation"
    if global_batch_size not in (None, product):
        raise UserError(f"global_batch_size={global_batch_size}, but {factors} = {product}; give one of the two.")
    return product, f"global batch {product} = {factors}"


def _batch_scale(batch_size: int, reference_batch_size: int | None) -> tuple[float, str]:
    """k, and how to say it."""
    if reference_batch_size is None:
        return 1.0, "; no reference_batch_size, nothing is scaled"
    scale = batch_size / reference_batch_size
    return scale, f", k = {scale:g} times the reference batch of {reference_batch_size}"


def _scaled_lr(learning_rate: float, rule: str, scale: float) -> tuple[float, str]:
    """The peak at the real batch, and why."""
    factor, meaning = LR_RULES[rule]
    peak_lr = learning_rate * factor(scale)
    if scale == 1.0:
        return peak_lr, f"peak_lr {peak_lr:g}"
    return peak_lr, f"peak_lr {learning_rate:g} -> {peak_lr:g}: lr_scaling={rule} ({meaning})"


def _scaled_warmup(duration: Duration, reference_steps: float, rule: str, scale: float) -> tuple[int, str]:
    """The warmup's steps at the real batch before the cap, and why."""
    factor, meaning = WARMUP_RULES[rule]
    steps, origin = whole_steps(reference_steps), "" if duration.unit == "steps" else f" ({duration})"
    if scale == 1.0 or steps == 0:
        return steps, f"warmup_steps {steps}{origin}"
    scaled = whole_steps(reference_steps * factor(scale))
    return scaled, f"warmup_steps {steps}{origin} -> {scaled}: warmup_scaling={rule} ({meaning})"


def _capped_warmup(steps: int, max_fraction: float, total_steps: int) -> tuple[int, tuple[str, ...]]:
    """The warmup's steps after the cap, with a warning where it bites."""
    cap = max(1, math.floor(max_fraction * total_steps))
    if steps <= cap:
        return steps, ()
    return cap, (
        f"warmup_steps {steps} -> {cap}: cut to max_warmup_fraction={max_fraction:g} of {total_steps} steps, so the "
        "ramp is steeper than asked for; make the run longer or raise max_warmup_fraction.",
    )


def _warmup_length(steps: int, total_steps: int, samples: int, tokens: int | None) -> str:
    """The warmup's length in every unit that is known."""
    fraction = steps / total_steps
    share = f"{fraction:.1%}" if fraction >= 0.01 or fraction == 0 else f"{fraction:.2%}"
    in_tokens = "" if tokens is None else f", {tokens:,} tokens"
    return f"warmup is {steps} of {total_steps} steps ({share}), {samples:,} samples{in_tokens}"
