"""What a recipe can be told, beside TrainingArguments: the model, the data, and the warmup."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class DataArguments:
    """Which text is trained on, and how it becomes blocks of tokens."""

    dataset: str = field(
        default="stdlib",
        metadata={"help": "'stdlib' (the Python standard library's source), a local file, folder or glob, or a hub name"},
    )
    dataset_config: str = field(default="", metadata={"help": "the hub dataset's configuration"})
    text_column: str = field(default="text", metadata={"help": "the column that holds the text"})
    validation_fraction: float = field(
        default=0.05, metadata={"help": "share of the documents held out when the data has no validation split"}
    )
    tokenizer: str = field(default="", metadata={"help": "a tokenizer to load; empty: train a byte-level BPE on the corpus"})
    vocab_size: int = field(default=4096, metadata={"help": "entries of the trained tokenizer"})
    block_size: int = field(default=256, metadata={"help": "tokens a training sample"})
    tokenize_workers: int = field(default=0, metadata={"help": "processes that tokenize; 0: this one"})
