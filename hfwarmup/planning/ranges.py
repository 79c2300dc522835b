"""The values that a number may have: those of a plan, and those of TrainingArguments that would end a run later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfwarmup.errors import Range

COUNT = Range(1, whole=True)
NOT_NEGATIVE = Range(0)
WHOLE_NOT_NEGATIVE = Range(0, whole=True)
ABOVE_ZERO = Range(0, above=True)
LEARNING_RATE = Range(0, remedy="a finite learning rate, 0 or more")
SHARE = Range(0, 1, above=True, remedy="a share of the run above 0 and at most 1")
BELOW_ONE = Range(0, 1, below=True)
SEED = Range(0, 2**32 - 1, whole=True)
INTERVAL = Range(
    0,
    above=True,
    whole=True,
    shares=True,
    remedy="a whole number of updates, 1 or more, or below 1 a share of the run",
)

RANGES = {
    "learning_rate": LEARNING_RATE,
    "warmup_steps": Range(0, remedy="a number of updates, 0 or more, or below 1 a share of the run"),
    "reference_batch_size": COUNT,
    "target_batch_size": COUNT,
    "max_warmup_fraction": SHARE,
    "per_device_train_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "max_steps": Range(-1, whole=True, remedy="a whole number of updates, or -1 for a run of num_train_epochs"),
    "num_train_epochs": Range(0, above=True, remedy="a number of epochs above 0, or max_steps"),
    "adam_beta2": BELOW_ONE,
    "noise_scale_samples": ABOVE_ZERO,
    "tokens_per_sample": ABOVE_ZERO,
    # of the data
    "validation_fraction": Range(0, 1, above=True, below=True, remedy="a share between 0 and 1, for example 0.05"),
    "vocab_size": Range(257, whole=True, remedy="257 or more: 256 bytes and <|endoftext|>"),
    "block_size": Range(2, whole=True, remedy="2 tokens or more: the first one is not predicted"),
    "tokenize_workers": WHOLE_NOT_NEGATIVE,
    # of TrainingArguments and its subclasses, beside the plan's
    "per_device_eval_batch_size": COUNT,
    "seed": SEED,
    "data_seed": SEED,
    "adam_beta1": BELOW_ONE,
    "adam_epsilon": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "label_smoothing_factor": BELOW_ONE,
    "neftune_noise_alpha": NOT_NEGATIVE,
    "logging_steps": INTERVAL,
    "eval_steps": INTERVAL,
    "save_steps": INTERVAL,
    "eval_delay": NOT_NEGATIVE,
    "save_total_limit": COUNT,
    "eval_accumulation_steps": COUNT,
    "torch_empty_cache_steps": COUNT,
    "dataloader_num_workers": WHOLE_NOT_NEGATIVE,
    "dataloader_prefetch_factor": COUNT,
    "ddp_timeout": COUNT,
    "ddp_bucket_cap_mb": COUNT,
    "generation_max_length": COUNT,
    "generation_num_beams": COUNT,
    "dataset_num_proc": COUNT,
}
"""Setting -> what it may be."""


def range_mistakes(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that are not in their range, each with one line; epochs count where there is no `max_steps`.

    >>> range_mistakes({"learning_rate": -1, "max_steps": 10, "num_train_epochs": -1})
    [('learning_rate', 'learning_rate=-1: give a finite learning rate, 0 or more.')]
    """
    findings = {name: allowed.mistake(name, settings.get(name)) for name, allowed in RANGES.items()}
    max_steps = settings.get("max_steps")
    if findings["max_steps"] is None and max_steps is not None and max_steps > 0:
        del findings["num_train_epochs"]
    return [(name, finding) for name, finding in findings.items() if finding is not None]
