"""Names of settings that people bring from elsewhere, and what to write here."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from hfwarmup.errors import UserError
from hfwarmup.planning.ranges import RANGES
from hfwarmup.planning.values import read_value

ALIASES = {
    # transformers: earlier names, and those of its example scripts
    "warmup_ratio": 'warmup: "{percent}%" (transformers 5 has no warmup_ratio)',
    "warmup_proportion": 'warmup: "{percent}%"',
    "num_warmup_steps": "warmup",
    "num_training_steps": "max_steps",
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "overwrite_output_dir": "resume: auto, or choose another output_dir (a run is never overwritten)",
    "model_name_or_path": "model",
    "tokenizer_name": "tokenizer",
    "dataset_name": "dataset",
    "dataset_config_name": "dataset_config",
    "max_seq_length": "block_size",
    "torch_dtype": "precision",
    # accelerate, DeepSpeed, Lightning, timm, nanoGPT, Megatron
    "mixed_precision": "precision",
    "dtype": "precision",
    "lr": "learning_rate",
    "max_lr": "learning_rate",
    "base_lr": "learning_rate",
    "min_lr": "lr_scheduler_kwargs: {{final_lr: {value}}}",
    "lr_scheduler": "lr_scheduler_type",
    "scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "warmup_num_steps": "warmup",
    "lr_warmup_steps": "warmup",
    "warmup_iters": "warmup",
    "warmup_epochs": 'warmup: "{value} epochs"',
    "warmup_samples": 'warmup: "{value} samples"',
    "warmup_tokens": 'warmup: "{value} tokens"',
    "warmup_fraction": 'warmup: "{percent}%"',
    "lr_warmup_fraction": 'warmup: "{percent}%"',
    "max_iters": "max_steps",
    "total_steps": "max_steps",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "max_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "target_batch_size",
    "global_batch_size": "target_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "accumulate_grad_batches": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "grad_clip": "max_grad_norm",
    "clip_grad": "max_grad_norm",
    "clip_grad_norm": "max_grad_norm",
    "max_norm": "max_grad_norm",
    # axolotl, LLaMA-Factory, torchtune, ms-swift
    "base_model": "model",
    "sequence_len": "block_size",
    "cutoff_len": "block_size",
    "val_set_size": "validation_fraction",
    "split_dataset_ratio": "validation_fraction",
    "lora_r": "lora_rank",
    "lora_target": "lora_targets",
    "lora_target_modules": "lora_targets",
    "target_modules": "lora_targets",
    "log_every_n_steps": "logging_steps",
    "compile": "torch_compile",
    "enable_activation_checkpointing": "gradient_checkpointing",
}
"""Name elsewhere -> name here, or the whole line with {value}, or {percent} of a share."""

WORDS: dict[str, dict[Any, str]] = {
    "precision": {
        "bfloat16": "bf16",
        "torch.bfloat16": "bf16",
        "float16": "fp16",
        "torch.float16": "fp16",
        "float32": "fp32",
        "torch.float32": "fp32",
        "no": "fp32",
    },
    "lr_scheduler_type": {"cosine": "warmup_cosine", "linear": "warmup_linear"},
}
"""Setting here -> the words that others use for its values, and ours."""


def advice(key: str, value: Any, known: Collection[str]) -> str | None:
    """What to write for a setting that has another name here; None for a name that stands for no `known` setting.

    With `known` a map of type hints, a value is only repeated where the setting here takes it.

    >>> advice("warmup_ratio", 0.05, ["warmup"])
    'warmup: "5%" (transformers 5 has no warmup_ratio)'
    >>> advice("lr", 2e-5, ["learning_rate"]), advice("lr", None, ["learning_rate"])
    ('learning_rate: 2e-05', 'learning_rate')
    >>> advice("dtype", "bfloat16", {"precision": str}), advice("optimizer", {"name": "adam"}, {"optim": str})
    ('precision: bf16', 'optim')
    >>> advice("lr", 2e-5, ["warmup"]) is None
    True
    """
    template = ALIASES.get(key, "")
    setting, is_line, _ = template.partition(":")
    if setting not in known:
        return None
    if is_line:
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        share = f"{100 * number:g}" if number is not None and 0 <= number <= 1 else "10"
        return template.format(value=_text(1 if number is None else number), percent=share)
    value = WORDS.get(setting, {}).get(value, value) if isinstance(value, str) else value
    return f"{setting}: {_text(value)}" if _is_taken(setting, value, known) else setting


def _is_taken(setting: str, value: Any, known: Collection[str]) -> bool:
    """Whether the value is one that can be given to the setting on one line."""
    if value is None or isinstance(value, list | dict):
        return False
    try:
        if isinstance(known, Mapping):
            read_value(setting, value, known[setting])
        if setting in RANGES:
            RANGES[setting].check(setting, value)
    except UserError:
        return False
    return True


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
