"""Names of settings that people bring from elsewhere, and what to write here."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

MOVED = {
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
    "max_iters": "max_steps",
    "total_steps": "max_steps",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "max_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "target_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "accumulate_grad_batches": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "grad_clip": "max_grad_norm",
    "clip_grad": "max_grad_norm",
}
"""Name elsewhere -> name here, or the whole line with {value}, or {percent} of a share."""


def moved_to(key: str, value: Any, known: Collection[str]) -> str | None:
    """The line to write for a setting that has another name here; None for a name that has not moved to a `known` one.

    >>> moved_to("warmup_ratio", 0.05, ["warmup"])
    'warmup: "5%" (transformers 5 has no warmup_ratio)'
    >>> moved_to("lr", 2e-5, ["learning_rate"]), moved_to("lr", None, ["learning_rate"])
    ('learning_rate: 2e-05', 'learning_rate')
    >>> moved_to("lr", 2e-5, ["warmup"]) is None
    True
    """
    template = MOVED.get(key, "")
    if template.partition(":")[0] not in known:
        return None
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if ":" not in template:
        return template if value is None else f"{template}: {text}"
    share = value if isinstance(value, int | float) else 0.1
    return template.format(value="1" if value is None else text, percent=f"{100 * share:g}")
