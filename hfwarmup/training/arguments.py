"""What a recipe can be told, beside TrainingArguments: the model, the data, and the warmup."""

from __future__ import annotations

from dataclasses import dataclass, field


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
