"""What a recipe can be told beside TrainingArguments: the model, the data, and the warmup."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from hfwarmup.errors import UserError
from hfwarmup.planning.durations import Duration, parse_duration
from hfwarmup.planning.plan import LrScaling, WarmupScaling
from hfwarmup.planning.ranges import RANGES
from hfwarmup.planning.values import read_map
from hfwarmup.schedules.spec import OnScheduleChange


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
            raise UserError("dataset is empty; name a file, folder or hub dataset, or 'stdlib'.")
        for name in ("validation_fraction", "vocab_size", "block_size", "tokenize_workers"):
            RANGES[name].check(name, getattr(self, name))


@dataclass(kw_only=True)
class ModelArguments:
    """Which model is trained: a checkpoint, or a new one from a config."""

    model: str = field(
        default="", metadata={"help": "a checkpoint to start from, folder or hub name; empty: a new model"}
    )
    model_type: str = field(default="", metadata={"help": "a new model's architecture, as transformers names it"})
    config_overrides: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "a new model's settings: a YAML map, or JSON, such as '{\"hidden_size\": 256}'"},
    )

    def __post_init__(self) -> None:
        self.config_overrides = read_map("config_overrides", self.config_overrides)
        if self.model and self.config_overrides:
            raise UserError(f"config_overrides are for a new model, and model={self.model!r} brings its own; drop one.")


@dataclass(kw_only=True)
class WarmupArguments:
    """The warmup, and how it and the peak follow the number of processes."""

    warmup: str | int | float | Duration | None = field(
        default=None, metadata={"help": "the warmup's length: 500, '5%', '2 epochs', '100k samples' or '20M tokens'"}
    )
    reference_batch_size: int | None = field(
        default=None,
        metadata={"help": "global batch, in samples, at which learning_rate and warmup were tuned; empty: no scaling"},
    )
    target_batch_size: int | None = field(
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

    def __post_init__(self) -> None:
        if self.warmup is not None:
            self.warmup = None if self.warmup == "" else parse_duration(self.warmup)

    @property
    def warmup_duration(self) -> Duration | None:
        """The warmup's length as it was given; None: by warmup_steps, or none."""
        return cast(Duration | None, self.warmup)
