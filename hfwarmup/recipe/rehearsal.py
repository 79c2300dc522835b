"""What TrainingArguments takes and a Trainer would refuse later: found before any data is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from hfwarmup.errors import unknown_choice
from hfwarmup.planning.transformers_schedules import TRANSFORMERS_SCHEDULES

UNREAD = {
    "do_train": "a recipe always trains; remove it.",
    "do_eval": "nothing reads it; write eval_strategy: steps, epoch or no.",
    "do_predict": "nothing reads it; remove it.",
    "resume_from_checkpoint": "nothing reads it; write resume: auto or must, with the run's output_dir.",
    "local_rank": "the launcher says it; remove it.",
}
"""Fields of TrainingArguments that no Trainer reads, and what to do instead."""

PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml", "dagshub": "dagshub", "neptune": "neptune-client"}
"""Trackers -> the package to install, where it is not the tracker's name."""


def rehearse(args: TrainingArguments) -> Iterator[tuple[str, str]]:
    """The settings that a Trainer would refuse, each with one line: an optimizer or schedule is made for one weight."""
    yield from _missing_packages(args)
    optimizer = None
    try:
        optimizer = _optimizer(args)
    except Exception as error:  # whatever the optimizer, its options or a missing package raise
        yield ("optim_args" if args.optim_args else "optim"), _refused("optim", args, error)
    if optimizer is not None and getattr(args.lr_scheduler_type, "value", "") in TRANSFORMERS_SCHEDULES:
        try:
            _run_schedule(args, optimizer)
        except Exception as error:
            yield "lr_scheduler_kwargs", _refused("lr_scheduler_kwargs", args, error)


def _missing_packages(args: TrainingArguments) -> Iterator[tuple[str, str]]:
    for tracker in args.report_to or []:
        if tracker not in INTEGRATION_TO_CALLBACK:
            yield "report_to", unknown_choice("report_to", tracker, INTEGRATION_TO_CALLBACK)
        elif tracker not in get_available_reporting_integrations():
            package = PACKAGES.get(tracker, tracker)
            yield "report_to", f"report_to={tracker!r}: {tracker} is not installed; pip install {package}."
    if args.use_liger_kernel and importlib.util.find_spec("liger_kernel") is None:
        yield "use_liger_kernel", "use_liger_kernel=true: liger-kernel is not installed; pip install liger-kernel."


def _optimizer(args: TrainingArguments) -> Optimizer:
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    return kind([torch.nn.Parameter(torch.zeros(2, 2))], **settings)


def _run_schedule(args: TrainingArguments, optimizer: Optimizer) -> None:
    """The learning rates of some updates, where transformers would evaluate its options for the first time."""
    options: Any = args.lr_scheduler_kwargs
    schedule = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=1,
        num_training_steps=100,
        scheduler_specific_kwargs=options,
    )
    for function in getattr(schedule, "lr_lambdas", []):
        for update in (0, 1, 50, 99):
            float(function(update))


def _refused(setting: str, args: TrainingArguments, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    value = getattr(args, setting)
    return (
        f"{setting}={getattr(value, 'value', value)!r}: cannot be used ({type(error).__name__}: {reason}); change it."
    )
