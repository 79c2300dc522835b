"""Fine-tune a checkpoint to classify texts, or to score them, with a named warmup schedule.

    ./launch.sh finetune_classification --config configs/finetune_classification/stdlib.yaml [--key value …]

A script to copy and change. Its steps: arguments, data, model, plan, training, results. The default task needs no
network: from which package of Python's standard library does a docstring come? It starts from the encoder that
pretrain_mlm.py makes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, PreTrainedTokenizerFast, Trainer

from hfwarmup.recipe import (
    DataArguments,
    ModelArguments,
    RecipeArguments,
    Run,
    WarmupArguments,
    build_model,
    build_tokenizer,
    compute_metrics_with,
    documented,
    drop_repeated,
    find_rows,
    load_corpus,
    load_labelled,
    parse_arguments,
    run_recipe,
    split_and_encode,
    stretch_warmup,
)

logger = logging.getLogger("hfwarmup.recipe")

MASKED_NAME = "___"
MIN_WORDS, MIN_TRAIN, MIN_VALIDATION = 5, 50, 10  # words a docstring; docstrings a package, in each split


@dataclass(kw_only=True)
class CheckpointArguments(ModelArguments):
    """The checkpoint that is fine-tuned, or what to build when it is missing."""

    new_if_missing: bool = field(
        default=False,
        metadata={"help": "when the folder `model` is missing, build a new model of model_type with config_overrides"},
    )

    def __post_init__(self) -> None:
        if self.new_if_missing and self.model:
            if Path(self.model).exists():
                self.config_overrides = {}
            else:
                self.model = ""
        super().__post_init__()


@dataclass(kw_only=True)
class TaskArguments:
    """What is learned from a text, how it is judged, and which parameters warm up differently."""

    label_column: str = field(default="label", metadata={"help": "column of the labels; floats make it a regression"})
    metrics: list[str] = field(
        default_factory=list,
        metadata={"help": "names for load_metric; empty: accuracy, F1 and Matthews correlation, or mse and mae"},
    )
    warmup_stretch: dict[str, float] = field(
        default_factory=dict,
        metadata={"help": "regular expression in a parameter's name -> factor of its warmup's length; a map, or JSON"},
    )


def load_examples(data: DataArguments, label_column: str, seed: int) -> DatasetDict:
    """Splits `train` and `validation`, columns `text` and `labels`: class ids with their names, or floats."""
    examples = stdlib_docstrings(data, seed) if data.dataset == "stdlib" else load_labelled(data, label_column)
    return split_and_encode(examples, validation_fraction=data.validation_fraction, seed=seed)


def stdlib_docstrings(data: DataArguments, seed: int) -> DatasetDict:
    """Docstrings of the standard library and the package of each; the names of all packages are masked.

    The split is by file, as in pretrain_mlm: with its validation_fraction and seed, no validation docstring was in its
    training text. Each text is kept once, in the training split if it is in both.
    """
    found = find_rows(load_corpus(data, seed), docstrings_of_package, ["text", "labels"], read=["text", "source"])
    counts = {split: Counter(found[split]["labels"]) for split in found}
    packages = [
        name for name, n in counts["train"].items() if n >= MIN_TRAIN and counts["validation"][name] >= MIN_VALIDATION
    ]
    pattern = "|".join(sorted(packages, key=len, reverse=True))
    masked = found.filter(lambda row: row["labels"] in packages).map(
        lambda row: {"text": re.sub(pattern, MASKED_NAME, row["text"], flags=re.IGNORECASE)}
    )
    return drop_repeated(masked, lambda row: {row["text"]})


def docstrings_of_package(source: str, path: str) -> Iterator[tuple[str, str]]:
    """The docstrings in a file, each on one line, and the name of the package; none in a module outside of packages."""
    package, *inside = Path(path).parts
    for _, docstring in documented(source) if inside else ():
        words = docstring.split()
        if len(words) >= MIN_WORDS:
            yield " ".join(words), package


def encode(examples: DatasetDict, tokenizer: PreTrainedTokenizerFast, max_length: int) -> DatasetDict:
    """The token ids of each text, cut at `max_length`. They begin with a special token, whatever the tokenizer does."""
    begin = "" if tokenizer.num_special_tokens_to_add() else tokenizer.cls_token or tokenizer.eos_token
    max_length = min(max_length, tokenizer.model_max_length)
    return examples.map(
        lambda batch: tokenizer([begin + text for text in batch["text"]], truncation=True, max_length=max_length),
        batched=True,
        remove_columns=["text"],
    )


ARGUMENTS = (CheckpointArguments, DataArguments, TaskArguments, WarmupArguments, RecipeArguments)
FACTS = {"tokens_per_sample": None, "trainer": True}


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags, which win.
    model_args, data_args, task_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    run = Run(args, warmup_args)

    # 2. Data: texts and labels, tokenized once, padded batch by batch.
    if model_args.model:  # its tokenizer is used as it is
        data_args.tokenizer, data_args.uncased = data_args.tokenizer or model_args.model, False
    with args.main_process_first():
        examples = load_examples(data_args, task_args.label_column, args.data_seed or 0)
        tokenizer = build_tokenizer(data_args, examples["train"], special_tokens={"pad_token": "<|pad|>"})
        data = encode(examples, tokenizer, data_args.block_size)
    labels = {split: np.asarray(data[split]["labels"]) for split in data}

    # 3. Model: a checkpoint with a new head, or a new one from a config.
    names = getattr(data["train"].features["labels"], "names", None)
    head: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
    if names:
        head = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    model = build_model(AutoModelForSequenceClassification, model_args, tokenizer, data_args.block_size, **head)
    model.config.pad_token_id = tokenizer.pad_token_id
    start = f"fine-tuned from {model_args.model}" if model_args.model else "from scratch"
    logger.info("%s: %s", start, f"{len(names)} classes" if names else "a regression")

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    collator = DataCollatorWithPadding(tokenizer)
    planned = run.plan(model, data["train"], collator=collator)

    # 5. Training; some parameters may warm up sooner or later than the rest.
    metric_names = task_args.metrics or (["accuracy", "f1_macro", "matthews_correlation"] if names else ["mse", "mae"])
    trainer = Trainer(
        model=model,
        args=planned,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        data_collator=collator,
        compute_metrics=compute_metrics_with(metric_names, is_regression=not names),
    )
    if task_args.warmup_stretch:
        trainer.create_optimizer()
        stretch_warmup(trainer.optimizer, trainer.model, task_args.warmup_stretch)
    run.train(trainer)

    # 6. Results: model, metrics, pictures; beside them the best constant answer.
    metrics = trainer.evaluate()
    if names:
        majority = int(np.bincount(labels["train"]).argmax())
        metrics["eval_baseline_accuracy"] = float(np.mean(labels["validation"] == majority))
        baseline = f"always {names[majority]!r}: accuracy {metrics['eval_baseline_accuracy']:.3f}"
    else:
        metrics["eval_baseline_mse"] = float(np.mean((labels["validation"] - labels["train"].mean()) ** 2))
        baseline = f"always the mean: mse {metrics['eval_baseline_mse']:.3f}"
    reached = ", ".join(f"{name} {metrics[f'eval_{name}']:.3f}" for name in ["loss", *metric_names])
    run.finish(trainer, metrics, summary=f"validation {reached}; {baseline}")


if __name__ == "__main__":
    run_recipe(main)
