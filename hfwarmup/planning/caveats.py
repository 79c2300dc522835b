"""Doubts about a plan, each with its source."""

from __future__ import annotations

SHORT_WARMUP = 0.005
"""share of a pretraining run below which its warmup is called short"""


def short_warmup(warmup_steps: int, total_steps: int) -> str | None:
    """The warmup of a pretraining run under 0.5% of it, None for a longer one.

    Wortsman et al. 2023 (arXiv:2309.14322) train language models with T_w from 0.05% to 25% of 100k steps: a longer one
    lowers the loss and its sensitivity to the learning rate, most for large models. Kosson et al. 2024
    (arXiv:2410.23922) find that a run without warmup stays behind for good.

    >>> short_warmup(10, 10_000)
    'warmup is 10 of 10000 steps (0.10%), under 0.5%: in pretraining a longer one lowers the loss and forgives a \
learning rate that is too high (Wortsman et al. 2023, arXiv:2309.14322; Kosson et al. 2024, arXiv:2410.23922); try \
warmup: "2%" or more.'
    >>> short_warmup(50, 10_000) is None
    True
    """
    share = warmup_steps / total_steps
    if share >= SHORT_WARMUP:
        return None
    return (
        f"warmup is {warmup_steps} of {total_steps} steps ({share:.2%}), under 0.5%: in pretraining a longer one "
        "lowers the loss and forgives a learning rate that is too high (Wortsman et al. 2023, arXiv:2309.14322; "
        'Kosson et al. 2024, arXiv:2410.23922); try warmup: "2%" or more.'
    )


def linear_rule_with_adam(optimizer: str, lr_scaling: str, scale: float) -> str | None:
    """The linear rule for the learning rate at k > 1 with an optimizer of Adam's kind, None otherwise.

    For Adam the stochastic differential equation is kept by eta sqrt(k) (Malladi et al. 2022, arXiv:2205.10287), and
    the best learning rate over the batch size follows the root, then falls (Li et al. 2024, arXiv:2405.14578).

    >>> linear_rule_with_adam("adamw_torch", "linear", 8.0)
    'lr_scaling=linear at k = 8 with optim=adamw_torch: for Adam theory has sqrt(k) (Malladi et al. 2022, \
arXiv:2205.10287; Li et al. 2024, arXiv:2405.14578); compare with lr_scaling: sqrt.'
    >>> linear_rule_with_adam("sgd", "linear", 8.0) is None
    True
    """
    if lr_scaling != "linear" or scale <= 1.0 or not _is_adam(optimizer):
        return None
    return (
        f"lr_scaling=linear at k = {scale:g} with optim={optimizer}: for Adam theory has sqrt(k) (Malladi et al. 2022, "
        "arXiv:2205.10287; Li et al. 2024, arXiv:2405.14578); compare with lr_scaling: sqrt."
    )


def beyond_noise_scale(batch_size: int, noise_scale_samples: float | None) -> str | None:
    """A global batch beyond the measured gradient noise scale, None up to it or where none was measured.

    The best learning rate of SGD is eta_max / (1 + B_noise / B) (McCandlish et al. 2018, arXiv:1812.06162): beyond
    B_noise it hardly grows, and most further samples are wasted. Adam's is highest at B = B_noise and falls beyond (Li
    et al. 2024, arXiv:2405.14578).

    >>> beyond_noise_scale(512, 300)
    'global batch 512 is beyond the noise scale of 300 samples: there a larger batch saves few steps, and no rule for \
the learning rate holds (McCandlish et al. 2018, arXiv:1812.06162; Li et al. 2024, arXiv:2405.14578); lower the batch, \
or do not scale beyond 300 samples.'
    >>> beyond_noise_scale(256, 300) is None
    True
    """
    if noise_scale_samples is None or batch_size <= noise_scale_samples:
        return None
    return (
        f"global batch {batch_size} is beyond the noise scale of {noise_scale_samples:g} samples: there a larger batch "
        "saves few steps, and no rule for the learning rate holds (McCandlish et al. 2018, arXiv:1812.06162; Li et al. "
        f"2024, arXiv:2405.14578); lower the batch, or do not scale beyond {noise_scale_samples:g} samples."
    )


def constant_warmup(schedule: str) -> str | None:
    """A warmup at a constant learning rate, None for any other.

    Goyal et al. 2017 (arXiv:1706.02677), table 1: 25.88% error, 24.84% without warmup, 23.74% with a gradual one.

    >>> constant_warmup("constant_warmup")
    'constant_warmup jumps to the peak: Goyal et al. 2017 (arXiv:1706.02677, table 1) had 25.88% error with it, 24.84% \
without warmup and 23.74% with a gradual one; take it for comparison only.'
    """
    if schedule != "constant_warmup":
        return None
    return (
        "constant_warmup jumps to the peak: Goyal et al. 2017 (arXiv:1706.02677, table 1) had 25.88% error with it, "
        "24.84% without warmup and 23.74% with a gradual one; take it for comparison only."
    )


WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
"""Schedules of transformers that take no warmup and drop the one that they are given."""


def dropped_warmup(schedule: str, warmup_steps: int) -> str | None:
    """A warning where the schedule drops its warmup, None where it runs one or has none.

    >>> dropped_warmup("constant", 10)
    'warmup_steps 10: constant of transformers ignores the warmup; choose gradual_warmup, or \
warmup_plateau for a plateau.'
    """
    if schedule not in WITHOUT_WARMUP or warmup_steps == 0:
        return None
    return (
        f"warmup_steps {warmup_steps}: {schedule} of transformers ignores the warmup; choose gradual_warmup, or "
        "warmup_plateau for a plateau."
    )


def peak_of_zero(peak_lr: float) -> str | None:
    """A run whose peak is 0, which leaves the weights as they are; None for any other.

    >>> peak_of_zero(0.0)
    'learning_rate 0: no weight will change; give a peak above 0, unless the run only measures.'
    """
    if peak_lr != 0.0:
        return None
    return "learning_rate 0: no weight will change; give a peak above 0, unless the run only measures."


def _is_adam(optimizer: str) -> bool:
    """Whether an optimizer, as transformers names it, divides by the root of a second moment as Adam does."""
    return "adam" in optimizer.lower()
