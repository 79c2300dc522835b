"""What TrainingArguments takes and a Trainer would refuse or ignore later: found before any data is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations

from hfwarmup.errors import unknown_choice
from hfwarmup.planning.transformers_schedules import TRANSFORMERS_SCHEDULES
from hfwarmup.trainer.compat import debug_options, tracker_names

Mistakes = Iterator[tuple[str, str]]
"""Setting, and one line on what is wrong with it."""

UNREAD = {
    "do_train": "a recipe always trains; remove it.",
    "do_eval": "nothing reads it; write eval_strategy: steps, epoch or no.",
    "do_predict": "nothing reads it; remove it.",
    "resume_from_checkpoint": "nothing reads it; write resume: auto or must, with the run's output_dir.",
    "local_rank": "the launcher says it; remove it.",
}
"""Fields of TrainingArguments that no Trainer reads, and what to do instead."""

WORDS: dict[str, Callable[[], Collection[str]]] = {
    "torch_compile_backend": lambda: torch.compiler.list_backends(exclude_tags=()),
    "torch_compile_mode": lambda: ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "include_num_input_tokens_seen": lambda: ("all", "non_padding", "no"),
    "include_for_metrics": lambda: ("inputs", "loss"),
    "debug": debug_options,
}
"""Settings that are text to TrainingArguments, and the words that are understood later."""

PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml", "neptune": "neptune-client"}
"""Trackers whose package has another name."""


def impossible_values(
    values: Mapping[str, Any], defaults: Mapping[str, Any], choices: Mapping[str, Collection[str]]
) -> Mistakes:
    """The values that no Trainer can use, from the settings alone; `choices` are the words of some of them.

    >>> list(impossible_values({"ddp_backend": "gluo"}, {}, {"ddp_backend": ["gloo"]}))[0][1].partition(";")[0]
    "ddp_backend='gluo'"
    >>> list(impossible_values({"do_train": False}, {"do_train": False}, {}))
    []
    """
    given = {name: value for name, value in values.items() if value is not None and value != defaults.get(name)}
    remedies = {name: UNREAD[name] for name in given.keys() & UNREAD.keys()}
    words = {**choices, **{name: understood() for name, understood in WORDS.items()}}
    for name in given.keys() & words.keys():
        yield from _unknown_words(name, given[name], words[name])
    if given.get("dataloader_persistent_workers") and not values.get("dataloader_num_workers"):
        remedies["dataloader_persistent_workers"] = "there are no workers; give dataloader_num_workers 1 or more."
    if "fsdp_config" in given and not given.get("fsdp"):
        remedies["fsdp_config"] = "it is read beside fsdp only; give fsdp, or remove it."
    for name, package in (("deepspeed", "deepspeed"), ("use_liger_kernel", "liger_kernel")):
        if given.get(name) and find_spec(package) is None:
            install = package.replace("_", "-")
            remedies[name] = f"{install} is not installed; pip install {install}."
    for name, remedy in remedies.items():
        yield name, f"{name}={given[name]!r}: {remedy}"


def rehearse(args: TrainingArguments) -> Mistakes:
    """What a Trainer would refuse: the trackers are looked up, optimizer and schedule are made for one weight."""
    for tracker in args.report_to or []:
        if tracker not in tracker_names():
            yield "report_to", unknown_choice("report_to", tracker, tracker_names())
        elif tracker not in get_available_reporting_integrations():
            package = PACKAGES.get(tracker, tracker)
            yield "report_to", f"report_to={tracker!r}: {tracker} is not installed; pip install {package}."
    try:
        optimizer = _optimizer(args)
    except Exception as error:  # whatever the optimizer, its options or a missing package raise
        setting = "optim_args" if args.optim_args else "optim"
        yield setting, _refused(setting, args, error)
        return
    if getattr(args.lr_scheduler_type, "value", "") in TRANSFORMERS_SCHEDULES:
        try:
            _run_schedule(args, optimizer)
        except Exception as error:
            yield "lr_scheduler_kwargs", _refused("lr_scheduler_kwargs", args, error)


def _unknown_words(name: str, value: Any, words: Collection[str]) -> Mistakes:
    for word in value if isinstance(value, list) else [value]:
        if isinstance(word, str) and word not in words:
            yield name, unknown_choice(name, word, words)


def _optimizer(args: TrainingArguments) -> Optimizer:
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    return kind([torch.nn.Parameter(torch.zeros(2, 2))], **settings)


def _run_schedule(args: TrainingArguments, optimizer: Optimizer) -> None:
    """The learning rates of some updates, where transformers evaluates its options for the first time."""
    schedule = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=1,
        num_training_steps=100,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,  # type: ignore[arg-type]
    )
    for function in getattr(schedule, "lr_lambdas", []):
        for update in (0, 1, 50, 99):
            float(function(update))


def _refused(setting: str, args: TrainingArguments, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    value = getattr(args, setting)
    shown = repr(getattr(value, "value", value))
    return f"{setting}={shown}: cannot be used ({type(error).__name__}: {reason}); change it."
