"""What a recipe can be told, beside TrainingArguments: the model, the data, and the warmup."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from hfwarmup.optim.resume import OnScheduleChange
from hfwarmup.planning.plan import LrScaling, Plan, WarmupScaling
from hfwarmup.planning.settings import PlanSettings
from hfwarmup.planning.settings_file import Setting
from hfwarmup.recipe.precision import choose_precision
from hfwarmup.run_folder.checkpoints import Resume
from hfwarmup.schedules.named import schedule_names


def read_map(setting: str, given: Any) -> dict[str, Any]:
    """A setting that is a map, given as one or as JSON; ValueError, in one line, for anything else.

    >>> read_map("config_overrides", '{"hidden_size": 256}')
    {'hidden_size': 256}
    >>> read_map("lr_scheduler_kwargs", "factor: 2")
    Traceback (most recent call last):
    ValueError: lr_scheduler_kwargs='factor: 2' is not JSON (Expecting value); quote its names.
    """
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except json.JSONDecodeError as error:
        raise ValueError(f"{setting}={given!r} is not JSON ({error.msg}); quote its names.") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{setting}={given!r}: give a map of settings.")
    return parsed


@dataclass(kw_only=True)
class DataArguments:
    """Which text is trained on, and how it becomes blocks of tokens."""

    dataset: str = field(
        default="stdlib",
        metadata={
            "help": "'stdlib' (the Python standard library's source), a local file, folder or glob "
            "(.txt .py .md: a document a file; .json .jsonl .csv .parquet: a document a row), or a hub name"
        },
    )
    dataset_config: str = field(default="", metadata={"help": "the hub dataset's configuration; empty: its only one"})
    text_column: str = field(default="text", metadata={"help": "the text's column in a table or hub dataset"})
    validation_fraction: float = field(
        default=0.05,
        metadata={"help": "share of the documents, in (0, 1), held out when the data has no validation split"},
    )
    tokenizer: str = field(
        default="",
        metadata={"help": "a tokenizer to load, folder or hub name; empty: train a byte-level BPE on the train split"},
    )
    vocab_size: int = field(default=4096, metadata={"help": "entries of the trained tokenizer, 257 or more"})
    uncased: bool = field(
        default=False,
        metadata={
            "help": "the trained tokenizer lower-cases and drops white space, as BERT's: a word has the same tokens "
            "wherever it stands, in prose and in code"
        },
    )
    block_size: int = field(default=256, metadata={"help": "tokens a training sample, 2 or more"})
    tokenize_workers: int = field(default=0, metadata={"help": "processes that tokenize; 0: this one, with threads"})

    def __post_init__(self) -> None:
        if not self.dataset:
            raise ValueError("dataset is empty; name a file, folder or hub dataset, or 'stdlib'.")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction={self.validation_fraction} is not in (0, 1); give for example 0.05.")
        if self.vocab_size < 257:
            raise ValueError(f"vocab_size={self.vocab_size} < 257 = 256 bytes + <|endoftext|>; raise vocab_size.")
        if self.block_size < 2:
            raise ValueError(f"block_size={self.block_size} < 2: no token is left to predict; raise block_size.")
        if self.tokenize_workers < 0:
            raise ValueError(f"tokenize_workers={self.tokenize_workers} < 0; give 0 for this process, or a count.")


@dataclass(kw_only=True)
class ModelArguments:
    """Which model is trained: a checkpoint, or a new one from a config."""

    model: str = field(
        default="", metadata={"help": "a checkpoint to start from, folder or hub name; empty: a new model"}
    )
    model_type: str = field(default="", metadata={"help": "a new model's architecture, as transformers names it"})
    config_overrides: str = field(
        default="{}", metadata={"help": "a new model's settings: a YAML map, or JSON, such as '{\"hidden_size\": 256}'"}
    )

    def __post_init__(self) -> None:
        overrides = self.overrides
        if self.model and overrides:
            raise ValueError(
                f"config_overrides are for a new model, and model={self.model!r} brings its own; drop one."
            )

    @property
    def overrides(self) -> dict[str, Any]:
        """config_overrides as a map."""
        return read_map("config_overrides", self.config_overrides)


@dataclass(kw_only=True)
class WarmupArguments:
    """The warmup, and how it and the peak follow the number of processes."""

    warmup: str = field(
        default="", metadata={"help": "the warmup's length: 500, '5%%', '2 epochs', '100k samples' or '20M tokens'"}
    )
    reference_batch_size: int | None = field(
        default=None,
        metadata={"help": "global batch, in samples, at which learning_rate and warmup were tuned; empty: no scaling"},
    )
    global_batch_size: int | None = field(
        default=None,
        metadata={"help": "samples an update, kept on any number of processes: gradient_accumulation_steps follows"},
    )
    lr_scaling: LrScaling = field(
        default="linear", metadata={"help": "how the peak follows k = batch / reference batch"}
    )
    warmup_scaling: WarmupScaling = field(default="linear", metadata={"help": "how the warmup's steps follow k"})
    max_warmup_fraction: float = field(default=0.5, metadata={"help": "longest warmup, as a share of the run"})
    noise_scale_samples: float | None = field(
        default=None, metadata={"help": "gradient noise scale, as measured; the plan warns of a batch beyond it"}
    )
    on_schedule_change: OnScheduleChange = field(
        default="error",
        metadata={
            "help": "when a resumed run's schedule is not the checkpoint's: stop, follow the config, or the checkpoint"
        },
    )


@dataclass(kw_only=True)
class RecipeArguments(TrainingArguments):
    """TrainingArguments with the defaults of a recipe: precision and compilation chosen, no run overwritten."""

    precision: Literal["auto", "bf16", "fp16", "fp32"] = field(
        default="auto", metadata={"help": "auto: bf16 where the device has it fast, fp16 on older GPUs, else fp32"}
    )
    torch_compile: str = field(  # type: ignore[assignment]
        default="auto", metadata={"help": "auto: when the run is long enough to pay for it; or true, or false"}
    )
    resume: Resume = field(
        default="never", metadata={"help": "never, auto (from the last checkpoint, if there is one) or must"}
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate at the reference batch"})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "hide losses that are not finite in the logs"}
    )
    report_to: str = field(default="none", metadata={"help": "trackers: tensorboard, trackio, …, or none"})
    ddp_find_unused_parameters: bool = field(
        default=False, metadata={"help": "look for parameters without gradient at every step, which costs time"}
    )
    settings: tuple[Setting, ...] = field(init=False, default=(), repr=False)
    """what parse_arguments read, of all arguments of the recipe, each with its origin"""
    plan: Plan | None = field(init=False, default=None, repr=False)
    """what plan_training made of it"""

    def __post_init__(self) -> None:
        choice = str(self.torch_compile).lower()
        if choice not in ("auto", "true", "false"):
            raise ValueError(f"torch_compile={self.torch_compile!r}: choose auto, true or false.")
        self.auto_compile = choice == "auto"
        self.torch_compile = choice == "true"  # type: ignore[assignment]
        # transformers asks for use_cpu before it lets a CPU train in bf16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        self.precision_reason = self._settle_precision()
        if self.lr_scheduler_kwargs is not None:
            self.lr_scheduler_kwargs = read_map("lr_scheduler_kwargs", self.lr_scheduler_kwargs)
        super().__post_init__()
        if self.precision == "fp32":
            self.mixed_precision = "no"  # whatever the launcher was told

    def _settle_precision(self) -> str:
        """Turn `precision` into bf16 and fp16, and say why."""
        flagged = [name for name, flag in (("bf16", self.bf16), ("fp16", self.fp16)) if flag]
        if len(flagged) > 1 or (flagged and self.precision not in ("auto", flagged[0])):
            given = " and ".join([*(f"{name}=true" for name in flagged), f"precision={self.precision}"])
            raise ValueError(f"{given} contradict; keep precision.")
        reason = "as asked for"
        if flagged:
            self.precision = cast(Any, flagged[0])
        elif self.precision == "auto":
            device = torch.device("cpu") if self.use_cpu else torch.accelerator.current_accelerator()
            self.precision, reason = choose_precision(device or torch.device("cpu"))
        self.bf16, self.fp16 = self.precision == "bf16", self.precision == "fp16"
        return f"precision {self.precision}: {reason}"


def plan_training(
    training: TrainingArguments,
    warmup: WarmupArguments,
    *,
    num_samples: int,
    tokens_per_sample: int | None = None,
    checkpoint: str | None = None,
) -> Plan:
    """Plan a Trainer's run and write the result into `training`: learning_rate, warmup_steps, the accumulation where
    `global_batch_size` is given, and the resume policy.

    The global batch is per-device batch x processes x accumulation, as the Trainer will have it; `num_samples` is the
    size of the training set. `training.warmup_steps` is the only owner of the warmup's length. What was given stays the
    reference: the same `training` can be planned again, and only what was set anew meanwhile counts as given. With
    auto_find_batch_size the batch of the `checkpoint` to resume from counts, which the Trainer goes back to.

    Raises ValueError as `PlanSettings.plan` does.
    """
    batch_size = training.train_batch_size
    if checkpoint and training.auto_find_batch_size:
        state = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
        batch_size = state.train_batch_size or batch_size
    given = _given(training)
    options = given.pop("lr_scheduler_kwargs")
    settings = _plan_settings(training, warmup, batch_size, tokens_per_sample)
    settings = replace(settings, **given, lr_scheduler_kwargs=options or {})
    plan = settings.plan(num_processes=training.world_size, num_samples=num_samples)
    if settings.lr_scheduler_type in schedule_names():
        options = {"on_schedule_change": warmup.on_schedule_change, **settings.lr_scheduler_kwargs}
    _write(plan, settings, training, options)
    return plan


def plan_again(
    plan: Plan,
    training: TrainingArguments,
    warmup: WarmupArguments,
    *,
    batch_size: int,
    total_steps: int,
    num_samples: int,
    tokens_per_sample: int | None = None,
) -> Plan:
    """`plan` for another per-process `batch_size` or another number of updates, written into `training`."""
    settings = replace(
        _plan_settings(training, warmup, batch_size, tokens_per_sample),
        learning_rate=plan.learning_rate,
        warmup_steps=0,
        global_batch_size=None,
    )
    settings = settings if settings.takes_warmup_from_beta2 else replace(settings, warmup=plan.warmup)
    new = settings.plan(num_processes=training.world_size, num_samples=num_samples, total_steps=total_steps)
    _write(new, settings, training, training.lr_scheduler_kwargs)
    return new


def _given(training: TrainingArguments) -> dict[str, Any]:
    """What a plan writes over, as it was before: the value now, unless it is still the one that a plan has written."""
    written: dict[str, tuple[Any, Any]] = getattr(training, "_given_and_planned", {})
    given = {}
    for name in ("learning_rate", "warmup_steps", "gradient_accumulation_steps", "lr_scheduler_kwargs"):
        now = getattr(training, name)
        before, planned = written.get(name, (now, now))
        given[name] = before if now == planned else now
    return given


def _write(plan: Plan, settings: PlanSettings, training: TrainingArguments, options: Any) -> None:
    given = _given(training)
    training.learning_rate = plan.peak_lr
    training.warmup_steps = 0 if settings.takes_warmup_from_beta2 else plan.warmup_steps
    training.gradient_accumulation_steps = plan.gradient_accumulation_steps
    training.lr_scheduler_kwargs = options
    planned = {name: (before, copy(getattr(training, name))) for name, before in given.items()}
    setattr(training, "_given_and_planned", planned)  # noqa: B010  no field: it is not the user's, nor in to_dict
    if isinstance(training, RecipeArguments):
        training.plan = plan


def _plan_settings(
    training: TrainingArguments, warmup: WarmupArguments, batch_size: int, tokens_per_sample: int | None
) -> PlanSettings:
    read = {setting.name: setting.value for setting in getattr(training, "settings", ())}
    given = {**read, **vars(training), **vars(warmup)}
    given |= {"per_device_train_batch_size": batch_size, "block_size": tokens_per_sample}
    return PlanSettings.pick({name: getattr(value, "value", value) for name, value in given.items()})
