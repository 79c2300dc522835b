"""Fine-tune a checkpoint to classify texts, or to score them, with a named warmup schedule.

    ./launch.sh finetune_classification --config configs/finetune_classification/stdlib.yaml [--key value …]

A script to copy and change: arguments, data, model, plan, training, results, in this order. The default task needs no
network: from which package of Python's standard library does a docstring come? Its checkpoint is the encoder that
pretrain_mlm.py makes.
"""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Value
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerFast,
    Trainer,
    set_seed,
)

import hfwarmup
from hfwarmup.optim.groups import stretch_warmup
from hfwarmup.planning.arguments import DataArguments, ModelArguments, WarmupArguments
from hfwarmup.planning.values import read_map
from hfwarmup.recipe.arguments import RecipeArguments
from hfwarmup.recipe.console import run_recipe, speak_from_rank_zero
from hfwarmup.recipe.corpus import load_corpus
from hfwarmup.recipe.data import build_tokenizer
from hfwarmup.recipe.labelled import load_labelled
from hfwarmup.recipe.metrics import load_metric
from hfwarmup.recipe.model import build_model
from hfwarmup.recipe.parsing import parse_arguments
from hfwarmup.recipe.precision import settle_compile
from hfwarmup.recipe.run import finish_run, train_to_end
from hfwarmup.recipe.run_config import KeepConfig
from hfwarmup.run_folder.checkpoints import find_checkpoint
from hfwarmup.trainer.monitor import watch_warmup
from hfwarmup.trainer.non_finite import NonFiniteGuard
from hfwarmup.trainer.planning import plan_training, planned_arguments
from hfwarmup.trainer.recorder import RunRecorder
from hfwarmup.trainer.replan import Replan
from hfwarmup.trainer.tracking import track_plan

logger = logging.getLogger("hfwarmup.recipe")

MASKED_NAME = "___"
MIN_WORDS, MIN_TRAIN, MIN_VALIDATION = 5, 50, 10  # words a docstring; docstrings a package, in each split


@dataclass(kw_only=True)
class CheckpointArguments(ModelArguments):
    """The checkpoint that is fine-tuned, or what to build where it is not there yet."""

    new_if_missing: bool = field(
        default=False,
        metadata={"help": "where the folder `model` is missing, a new model of model_type with config_overrides"},
    )

    def __post_init__(self) -> None:
        if self.new_if_missing and self.model:
            if Path(self.model).exists():
                self.config_overrides = "{}"
            else:
                self.model = ""
        super().__post_init__()


@dataclass(kw_only=True)
class TaskArguments:
    """What is learned from a text, how it is judged, and which parameters warm up differently."""

    label_column: str = field(default="label", metadata={"help": "the labels' column; floats make it a regression"})
    metrics: list[str] = field(
        default_factory=list,
        metadata={"help": "names for load_metric; empty: accuracy, F1 and Matthews correlation, or mse and mae"},
    )
    warmup_stretch: str = field(
        default="{}",
        metadata={"help": "regex of parameter names -> factor of their warmup's length, a YAML map or JSON"},
    )

    @property
    def stretch(self) -> dict[str, float]:
        """warmup_stretch as a map."""
        return read_map("warmup_stretch", self.warmup_stretch)


def load_examples(data: DataArguments, label_column: str, seed: int) -> DatasetDict:
    """Splits `train` and `validation`, columns `text` and `labels`: class ids with their names, or floats."""
    if data.dataset == "stdlib":
        examples = stdlib_docstrings(data, seed)
    else:
        examples = load_labelled(data, label_column)
    if "validation" not in examples:
        train, validation = examples["train"].train_test_split(data.validation_fraction, seed=seed).values()
        examples = DatasetDict(train=train, validation=validation)
    kind = examples["train"].features["labels"]
    if isinstance(kind, ClassLabel):
        return examples
    if kind.dtype.startswith("float"):
        return examples.cast_column("labels", Value("float32"))
    values = sorted({value for split in examples.values() for value in split.unique("labels")})
    names = pa.array(values).cast(pa.string()).to_pylist()  # spelled as the cast of the column spells them: true, 1
    return examples.cast_column("labels", Value("string")).cast_column("labels", ClassLabel(names=names))


def stdlib_docstrings(data: DataArguments, seed: int) -> DatasetDict:
    """Docstrings of the standard library and the package that each is from, its name and the others' masked.

    Split by file, as pretrain_mlm splits the same source: with its validation_fraction and seed no validation docstring
    was in its training text. A text that is in both splits is left out of validation, a repeated one is kept once.
    """
    corpus = load_corpus(data, seed)
    found = corpus.map(_docstrings, batched=True, remove_columns=["source"])
    counts = {split: Counter(found[split]["labels"]) for split in found}
    packages = [
        name for name, n in counts["train"].items() if n >= MIN_TRAIN and counts["validation"][name] >= MIN_VALIDATION
    ]
    pattern = "|".join(sorted(packages, key=len, reverse=True))
    masked = found.filter(lambda row: row["labels"] in packages).map(
        lambda row: {"text": re.sub(pattern, MASKED_NAME, row["text"], flags=re.IGNORECASE)}
    )
    seen: set[str] = set()
    return DatasetDict({split: _first_of_each_text(masked[split], seen) for split in ("train", "validation")})


def _docstrings(files: dict[str, list[str]]) -> dict[str, list[str]]:
    """The docstrings in some files of packages, each on one line, and the package's name."""
    texts, packages = [], []
    for path, source in zip(files["source"], files["text"], strict=True):
        package, *inside = Path(path).parts
        with warnings.catch_warnings(action="ignore"):  # of escapes in the source that is parsed
            nodes = ast.walk(ast.parse(source)) if inside else iter(())
        for node in nodes:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                words = (ast.get_docstring(node) or "").split()
                if len(words) >= MIN_WORDS:
                    texts.append(" ".join(words))
                    packages.append(package)
    return {"text": texts, "labels": packages}


def _first_of_each_text(examples: Dataset, seen: set[str]) -> Dataset:
    """The examples whose text is not in `seen`, to which they are added."""
    kept = []
    for index, text in enumerate(examples["text"]):
        if text not in seen:
            seen.add(text)
            kept.append(index)
    return examples.select(kept)


def encode(examples: DatasetDict, tokenizer: PreTrainedTokenizerFast, max_length: int) -> DatasetDict:
    """The token ids of each text, cut at `max_length`, behind one special token if the tokenizer adds none itself."""
    begin = "" if tokenizer.num_special_tokens_to_add() else tokenizer.cls_token or tokenizer.eos_token
    max_length = min(max_length, tokenizer.model_max_length)
    return examples.map(
        lambda batch: tokenizer([begin + text for text in batch["text"]], truncation=True, max_length=max_length),
        batched=True,
        remove_columns=["text"],
    )


def compute_metrics_with(names: list[str], is_regression: bool) -> Callable[[EvalPrediction], dict[str, float]]:
    """What the Trainer calls after an evaluation, with the metrics of these names."""
    metrics = [load_metric(name) for name in names]

    def compute(evaluated: EvalPrediction) -> dict[str, float]:
        outputs = evaluated.predictions[0] if isinstance(evaluated.predictions, tuple) else evaluated.predictions
        predictions = outputs.squeeze(-1) if is_regression else outputs.argmax(-1)
        values: dict[str, float] = {}
        for metric in metrics:
            values |= metric.compute(predictions=predictions, references=evaluated.label_ids) or {}
        return values

    return compute


ARGUMENTS = (CheckpointArguments, DataArguments, TaskArguments, WarmupArguments, RecipeArguments)


def main() -> None:
    # 1. Arguments: the YAML file of --config, then flags.
    hfwarmup.register()
    model_args, data_args, task_args, warmup_args, args = parse_arguments(*ARGUMENTS)
    speak_from_rank_zero()
    checkpoint = find_checkpoint(args.output_dir, args.resume)
    set_seed(args.seed)

    # 2. Data: texts and labels, tokenized once, padded batch by batch.
    if model_args.model:  # its tokenizer is as it is
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
    size = f"{model.num_parameters() / 1e6:.1f}M parameters"
    target = f"{len(names)} classes" if names else "a regression"
    logger.info(
        "%s, %s, %s; %s; %d and %d examples", model.config.model_type, size, start, target, *map(len, data.values())
    )
    logger.info("%s", args.precision_reason)

    # 4. Plan: peak learning rate and warmup at the real global batch; then whether compiling pays.
    num_samples = len(data["train"])
    plan = plan_training(args, warmup_args, num_samples=num_samples, checkpoint=checkpoint)
    planned = planned_arguments(args, warmup_args, plan)
    logger.info("%s", plan)
    collator = DataCollatorWithPadding(tokenizer)
    sample = collator([data["train"][i] for i in range(min(args.train_batch_size, num_samples))])
    logger.info("%s", settle_compile(planned, model, sample, total_steps=plan.total_steps))

    # 5. Training; some parameters may warm up sooner or later than the rest.
    metric_names = task_args.metrics or (["accuracy", "f1_macro", "matthews_correlation"] if names else ["mse", "mae"])
    replan = Replan(args, warmup_args, num_samples=num_samples)
    trainer = Trainer(
        model=model,
        args=planned,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        data_collator=collator,
        compute_metrics=compute_metrics_with(metric_names, is_regression=not names),
        callbacks=[replan, NonFiniteGuard(), RunRecorder(), KeepConfig()],
    )
    if task_args.stretch:
        trainer.create_optimizer()
        stretch_warmup(trainer.optimizer, trainer.model, task_args.stretch)
    watch_warmup(trainer)
    track_plan(trainer)
    train_metrics = train_to_end(trainer, checkpoint, total_steps=plan.total_steps)

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
    finish_run(
        trainer,
        train_metrics=train_metrics,
        eval_metrics=metrics,
        summary=f"validation {reached}; {baseline}",
    )


if __name__ == "__main__":
    run_recipe(main)
